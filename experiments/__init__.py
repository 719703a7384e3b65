"""The paper's evidence for one's own data: many fits as independent jobs, and tables and figures with intervals."""
