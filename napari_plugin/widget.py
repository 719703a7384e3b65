"""The window: a form beside napari's canvas, which runs a ``Session`` in a thread and shows what it says."""

__all__ = ["Annotate"]

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, Label, ProgressBar, PushButton, TextEdit
from napari.qt.threading import create_worker
from numpy.typing import NDArray

from textdiff.console import counted, form
from textdiff.errors import explain
from textdiff.napari_plugin.session import Session

if TYPE_CHECKING:
    from napari.viewer import Viewer

IMAGE, FOUND, UNSURE, LABELS = "image", "prediction", "uncertainty", "labels"
KEYS = {"Fit": "Shift-F", "Predict": "Shift-P", "Next": "Shift-N", "Accept": "Shift-A", "Save": "Shift-S"}
_Steps = Generator[tuple[int, int], None, Any]


class Annotate(Container[Any]):
    """Open, paint, *Fit*, look, paint, *Accept*, *Save*, *Next*.

    Args:
        napari_viewer: where the layers go.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        self.viewer, self.current = napari_viewer, ""
        self._session: Session | None = None
        self.worker: Any = None
        self.path = FileEdit(mode=FileDialogMode.EXISTING_DIRECTORY, label="Run or cache")
        self.image = ComboBox(label="Image", choices=lambda _: self._session.names if self._session else [])
        self.text = TextEdit(label="Text")
        self.legend, self.status = Label(), Label(value="Give a run's directory or a cache, and open it.")
        self.progress = ProgressBar(visible=False)
        self.buttons = {name: PushButton(text=name, enabled=False) for name in (*KEYS, "Stop")}
        self.open = PushButton(text="Open")
        rows = [Container(widgets=list(self.buttons.values())[i : i + 3], layout="horizontal") for i in (0, 3)]
        named = Container(widgets=[self.path, self.open, self.image, self.text])
        super().__init__(widgets=[named, self.legend, *rows, self.progress, self.status], labels=False)
        self.native.layout().addStretch()  # what is left of the height is below the form, not within it
        self.text.native.setReadOnly(True)
        self.text.native.setMaximumHeight(120)
        for label in (self.legend, self.status):
            label.native.setWordWrap(True)
        actions = {"Fit": self._fit, "Predict": self._predict, "Next": self._next, "Accept": self._accept}
        actions |= {"Save": self._save, "Stop": self._stop}
        for name, action in actions.items():
            self.buttons[name].changed.connect(self._guarded(action))
            if name in KEYS:
                self.buttons[name].tooltip = KEYS[name]
                self.viewer.bind_key(KEYS[name], self._key(name), overwrite=True)
        self.open.changed.connect(self._guarded(self._open))
        self.image.changed.connect(self._guarded(self._choose))

    @property
    def session(self) -> Session:
        """What was opened; buttons cannot be pressed before."""
        assert self._session is not None
        return self._session

    def _choose(self) -> None:
        if self.image.value:
            self._show(self.image.value)

    def _open(self) -> None:
        """Opens what the form names, in the thread of the window: it reads tables, no activations."""
        self.current = ""
        self._session = Session(str(self.path.value))
        self.legend.value = "Paint with " + ", ".join(f"{i} {what}" for i, what in enumerate(self.session.legend))
        with self.image.changed.blocked():
            self.image.reset_choices()
        self._say(f"{counted(len(self.session.names), 'image')}.")
        self._busy(False)
        self._show(self.session.names[0])
        if self.session.can_predict:
            self._predict()

    def _show(self, name: str) -> None:
        """Shows an image, its text and its labels; what is painted on the one before stays in the session."""
        self._take()
        shown = self.session.show(name)
        self.current = name
        with self.image.changed.blocked():
            self.image.value = name
        self.text.value = shown.text or "(no text)"
        nothing = np.zeros(shown.labels.shape, np.uint8)
        self._layer(IMAGE, shown.image, self.viewer.add_image, rgb=True)
        self._layer(UNSURE, nothing.astype(np.float32), self.viewer.add_image, visible=False, colormap="magma",
                    contrast_limits=(0, 1), opacity=0.7)  # fmt: skip
        self._layer(FOUND, nothing, self.viewer.add_labels, opacity=0.4)
        labels = self._layer(LABELS, shown.labels, self.viewer.add_labels, opacity=0.7)
        labels.brush_size = max(labels.brush_size, shown.pen)
        self.viewer.layers.selection.active = labels
        if labels.mode == "pan_zoom":
            labels.mode = "paint"
        if (split := self.session.split(name)) != "train":
            self._say(f"{name} is a {split} image: what you paint is saved, and not learned from.")

    def _fit(self) -> None:
        self._take()
        name = self.current

        def steps() -> _Steps:
            learned = yield from self.session.fit()
            return learned, self.session.predict(name)

        def done(result: Any) -> str:
            self._put(name, result[1])
            return f"Fitted on {result[0]}; new mask"

        self._work(steps, done)

    def _predict(self) -> None:
        name = self.current

        def steps() -> _Steps:
            yield 0, 1
            return self.session.predict(name)

        def done(found: Any) -> str:
            self._put(name, found)
            return "Mask"

        self._work(steps, done)

    def _next(self) -> None:
        self._take()

        def steps() -> _Steps:
            name = yield from self.session.next(self.current)
            return name, self.session.predict(name) if self.session.can_predict else None

        def done(result: Any) -> str:
            self._show(result[0])
            if result[1] is not None:
                self._put(*result)
            return f"{result[0]} comes next, chosen"

        self._work(steps, done)

    def _accept(self) -> None:
        """Takes the prediction where nothing is said; napari can undo it."""
        labels, found = self.viewer.layers[LABELS], self.viewer.layers[FOUND]
        if found.metadata.get("of") != self.current:  # it was made for another image
            self._say("There is no prediction yet: press Fit or Predict.")
            return
        places = np.nonzero(np.asarray(labels.data) == 0)
        labels.data_setitem(places, np.maximum(found.data[places], 1))
        self._say(f"{counted(len(places[0]), 'pixel')} {form(len(places[0]), 'is', 'are')} taken from the prediction.")

    def _save(self) -> None:
        self._take()
        files = self.session.save()
        more = "\nGo on with:\n" + self.session.commands if files else ""
        self._say(f"Saved: {', '.join(file.name for file in files) or 'nothing was painted since'}.{more}")

    def _stop(self) -> None:
        self.worker.quit()

    def _put(self, name: str, found: Any) -> None:
        """Shows a prediction, unless another image is shown by now; background is transparent."""
        if name == self.current:
            self.viewer.layers[FOUND].data = np.where(found.labels == 1, 0, found.labels)
            self.viewer.layers[FOUND].metadata = {"of": name}
            self.viewer.layers[UNSURE].data = found.uncertainty

    def _take(self) -> None:
        """Hands what is painted to the session."""
        if self.current:
            self.session.paint(self.current, np.asarray(self.viewer.layers[LABELS].data))

    def _layer(self, name: str, data: NDArray[Any], add: Callable[..., Any], **how: Any) -> Any:
        """The layer of a name with new data; of one that is there, what the user has set stays."""
        if name not in self.viewer.layers:
            return add(data, name=name, **how)
        layer = self.viewer.layers[name]
        layer.data, layer.metadata = data, {}
        return layer

    def _work(self, steps: Callable[[], _Steps], done: Callable[[Any], str]) -> None:
        """Runs steps in a thread; their result comes to ``done``, whose words are shown with the time since now."""
        start = time.perf_counter()

        def said(found: Any) -> None:
            self._say(f"{done(found)} in {time.perf_counter() - start:.1f} s.")

        def run() -> _Steps:  # by this kind of function napari tells that it can be stopped
            return (yield from steps())

        worker = create_worker(run, _ignore_errors=True)
        worker.yielded.connect(self._advance)
        worker.returned.connect(lambda found: self._guarded(lambda: said(found))())
        worker.aborted.connect(lambda: self._say("Stopped; nothing has changed."))
        worker.errored.connect(self._fail)
        worker.finished.connect(lambda: self._busy(False))
        self.worker = worker
        self._busy(True)
        worker.start()

    def _advance(self, step: tuple[int, int]) -> None:
        self.progress.max, self.progress.value = step[1], step[0]

    def _busy(self, busy: bool) -> None:
        for name, button in self.buttons.items():
            button.enabled = busy if name == "Stop" else not busy
        self.open.enabled = self.image.enabled = not busy
        self.progress.visible = busy

    def _say(self, text: str) -> None:
        unsaved = self._session.unsaved if self._session else []
        self.status.value = text + (f"\nNot saved yet: {', '.join(unsaved)}" if unsaved else "")

    def _fail(self, error: Exception) -> None:
        """Says what a user can put right; all else goes to napari."""
        if (said := explain(error)) is None:
            raise error
        self._say(said)

    def _guarded(self, action: Callable[[], object]) -> Callable[..., None]:
        """The action as what a button calls: what goes wrong is said in the window."""

        def run(*_: Any) -> None:
            try:
                action()
            except Exception as error:
                self._fail(error)

        return run

    def _key(self, name: str) -> Callable[[Any], None]:
        """What a key calls: the button, if it can be pressed."""
        button = self.buttons[name]
        return lambda _: button.changed.emit(True) if button.enabled else None
