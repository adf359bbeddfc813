"""A local web app: type a problem, watch it being solved, change the plan."""

from __future__ import annotations

import argparse
import ipaddress
import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from hbd3lm.commands.arguments import whole
from hbd3lm.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm demo",
        description="Open a web app on this machine: type a problem, watch plan and execution "
        "being written, change the plan and see the execution change. Needs the extra demo: "
        "pip install 'hbd3lm[demo]'.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help="a checkpoint file, a run's folder (its best checkpoint), a folder written by "
        "hbd3lm export, or the id of a model on the Hugging Face hub",
    )
    parser.add_argument(
        "--port", type=whole(1, 65535), metavar="N", help="default: the first free one from 7860 up"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in (default: %(default)s, this "
        "machine alone)",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, ... (default: the GPU where there is one)"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted. Returns 0.

    Raises:
        UserError: no gradio, no such checkpoint, or an address that cannot be listened on.
    """
    args = build_parser().parse_args(argv)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"hbd3lm demo needs gradio ({error}); install it with: pip install 'hbd3lm[demo]'"
        ) from None
    from hbd3lm.commands.demo_app import build_app, launch
    from hbd3lm.pretrained import HBD3LM

    model = HBD3LM.from_pretrained(resolve_checkpoint(args.checkpoint), args.device)
    with TemporaryDirectory(prefix="hbd3lm-demo-", ignore_cleanup_errors=True) as folder:
        # Gradio copies what it offers to download, and keeps the copies.
        os.environ["GRADIO_TEMP_DIR"] = folder
        app = build_app(model, Path(folder))
        try:
            address = launch(app, args.host, args.port, args.open)
            print(f"demo of {model.path}: {address} (Ctrl-C ends it)", flush=True)
            if not is_local(args.host):
                print("note: every machine that reaches this one can use it", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closed")  # the server's thread ends with the process
    return 0


def resolve_checkpoint(path: str) -> str:
    """``path``, or the best (else last) checkpoint of the run whose folder it is."""
    for name in ("best.ckpt", "last.ckpt"):
        file = Path(path, "checkpoints", name)
        if file.is_file():
            return str(file)
    return path


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
