"""`python -m modelyard.serve`: the data plane of one plan file, alone.

Hides nothing but the parsing of its flags. It must import neither the control plane nor a command-line library.
"""

from __future__ import annotations

import gc
import sys


def main(argv: list[str] | None = None) -> int:
    """Serve a plan until told to stop; exit code 2 for a setting that cannot be honoured."""
    gc.disable()  # what is loaded stays: to look through it again and again would only take time from the start
    import argparse
    from pathlib import Path

    from modelyard import config
    from modelyard.errors import ModelyardError
    from modelyard.serve import supervisor

    gc.freeze()
    gc.enable()
    parser = argparse.ArgumentParser(prog="python -m modelyard.serve", description="Serve what a plan file says.")
    parser.add_argument("--plan", type=Path, help="the plan file; default: the home's")
    parser.add_argument("--run", type=Path, help="folder for state files; default: the home's")
    parser.add_argument("--spool", type=Path, help="folder for observations; none are kept without one")
    parser.add_argument("--export", dest="export_url", metavar="URL", help="send the observations to a control API, or to a store")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--grpc-port", type=int, help="0: any free one; -1: none")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--keys-file")
    parser.add_argument("--dynamic", type=Path, help="folder whose bundles may be loaded and unloaded by request")
    parser.add_argument("--isolation", choices=("strong", "weak"))
    parser.add_argument("--insecure", action="store_true", default=None)
    parser.add_argument("--json", action="store_true", help="print the endpoint card as JSON")
    arguments = parser.parse_args(argv)
    flags = {
        name: getattr(arguments, name)
        for name in ("home", "host", "port", "grpc_port", "workers", "keys_file", "insecure", "isolation", "export_url")
    }
    try:
        settings = config.load(flags)
        plan, run = (arguments.plan or settings.plan).absolute(), (arguments.run or settings.run).absolute()
        exports = bool(arguments.export_url)
        spool = arguments.spool.absolute() if arguments.spool else run / "spool" if exports else None
        dynamic = arguments.dynamic.absolute() if arguments.dynamic else None
        return supervisor.run(settings, plan, run, spool, as_json=arguments.json, dynamic=dynamic, forks=True, exports=exports)
    except ModelyardError as error:
        sys.stderr.write(f"modelyard: {error.message}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
