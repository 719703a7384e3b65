"""The options of every command, each declared once: see ``record``. No module of this package imports a heavy one."""
