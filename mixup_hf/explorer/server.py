"""Serves the page on this machine until it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOL_SOCKET, socket
from threading import Event

from mixup_hf import errors
from mixup_hf.explorer import style
from mixup_hf.explorer.page import build
from mixup_hf.explorer.session import Session

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    session: Session,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    browser: bool = False,
    on_ready: Callable[[str], object] | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        session: What the page works on.
        host: As for `serving`.
        port: As for `serving`.
        browser: As for `serving`.
        on_ready: Called with the page's address once it can be opened.

    Raises:
        MissingPackage: As for `serving`.
        InvalidInput: As for `serving`.
    """
    with serving(session, host=host, port=port, browser=browser) as url:
        if on_ready is not None:
            on_ready(url)
        wait()


@contextmanager
def serving(
    session: Session, *, host: str = "127.0.0.1", port: int = 7860, browser: bool = False
) -> Iterator[str]:
    """Serve the page while the block runs, and give its address. Nothing is sent or fetched.

    Args:
        session: What the page works on.
        host: Address to listen at; another than `127.0.0.1` lets others read the rows.
        port: Port; 0 takes one that is free.
        browser: Open the page in a browser.

    Raises:
        MissingPackage: Gradio is not installed.
        InvalidInput: The address or port cannot be listened at.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    gradio = errors.optional("gradio", "explore", "The explorer")
    page = build(session)
    _, url, _ = page.launch(
        server_name=host,
        server_port=check_address(host, port),
        prevent_thread_lock=True,
        inbrowser=browser,
        quiet=True,
        share=False,
        ssr_mode=False,  # needs Node
        footer_links=[],
        allowed_paths=[str(session.output)],
        theme=style.theme(gradio),
        head=style.head(),
    )
    try:
        yield url
    finally:
        page.close(verbose=False)


def check_address(host: str, port: int) -> int:
    """A port that can be listened at: `port`, or one that is free for 0.

    Raises:
        InvalidInput: The address is not one of this machine, or the port is taken.
    """
    errors.in_range("--port", port, 0, 65535)
    try:
        with socket(AF_INET6 if ":" in host else AF_INET) as probe:
            probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise errors.InvalidInput(
            f"The page cannot be served at `--host` {host}, `--port` {port}: "
            f"{error.strerror or error}. Give another port; 0 takes any that is free."
        ) from error


def wait() -> None:
    """Return at Ctrl-C."""
    try:
        Event().wait()
    except KeyboardInterrupt:
        return
