"""Events and their handlers: one at a time, and an error becomes a sentence on the page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from mixup_hf import errors
from mixup_hf.explorer import markup

Values = tuple[Any, ...]
_log = logging.getLogger(__name__)


class Wiring:
    """Connects events with handlers.

    Everything that uses a model runs one at a time, in the order it was asked for.

    Args:
        gr: Gradio.
        status: The component that shows what is going on and what went wrong: see `status_line`.
    """

    def __init__(self, gr: Any, status: Any) -> None:
        self.gr, self.status = gr, status

    def on(
        self,
        event: Any,
        handler: Callable[..., Values],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        busy: str = "",
        says: bool = False,
    ) -> Any:
        """Run `handler` at an event.

        Args:
            event: A listener of a component, or `then` of an earlier event.
            handler: Takes the values of `inputs`, returns those of `outputs`.
            inputs: Components.
            outputs: Components; left as they are by an error.
            busy: What the status says meanwhile.
            says: The handler returns the status as its last value.

        Returns:
            What can be chained with `then`.
        """
        unchanged = [self.gr.skip() for _ in outputs]

        def run(*values: Any) -> Any:
            if busy:
                yield (*unchanged, markup.busy(busy))
            try:
                made = handler(*values)
                yield made if says else (*made, "")
            except errors.MixupError as error:
                yield (*unchanged, markup.alert(str(error)))
            except Exception as error:
                _log.exception("The explorer met an error")
                said = f"This is a bug in mixup_hf ({type(error).__name__}: {error}). "
                yield (*unchanged, markup.alert(f"{said}The terminal shows where."))

        return event(
            run,
            list(inputs),
            [*outputs, self.status],
            concurrency_id="models",
            concurrency_limit=1,
            api_visibility="private",
            show_progress="hidden",
        )


def status_line(gr: Any, name: str, value: str = "") -> Any:
    """A place for what is going on and what went wrong; takes no room while there is nothing.

    Args:
        gr: Gradio.
        name: The element's id.
        value: What it says before anything is asked for.
    """
    return html(gr, value, elem_id=name, elem_classes="mx-status")


def html(gr: Any, value: str = "", **settings: Any) -> Any:
    """A place for markup of this package, which brings its own style."""
    return gr.HTML(value, apply_default_css=False, **settings)
