"""``python -m airflow_provider_volubile.simulator``: run the simulator."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from airflow_provider_volubile.simulator.config import PRIMARY_KEY, SECONDARY_KEY, Config, Options

MISSING = (
    "The simulator needs FastAPI and uvicorn. Install them with the extra: "
    "pip install 'airflow-provider-volubile[simulator]'"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulator until interrupted; return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        from airflow_provider_volubile.simulator import server
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        print(MISSING, file=sys.stderr)
        return 1
    try:
        config = Config.model_validate(_config(given))
    except ValidationError as error:
        print(f"Volubile simulator: {error}", file=sys.stderr)
        return 2
    options = Options(
        seed=given.seed,
        start=None if given.start is None else given.start.timestamp(),
        primary_key=given.primary_key,
        secondary_key=given.secondary_key,
        config=config,
    )
    try:
        server.run(options, given.host, given.port, given.media_port, until_stdin_closes=given.until_stdin_closes)
    except OSError as error:
        print(f"Volubile simulator cannot listen: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_volubile.simulator",
        description="A local simulator of Volubile, for developing and testing Dags.",
    )
    parser.add_argument("--port", type=int, default=8765, help="API and control interface; 0: any (%(default)s)")
    parser.add_argument("--media-port", type=int, default=0, help="recordings behind presigned links; 0: any")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws (%(default)s)")
    parser.add_argument("--start", type=_instant, help="simulated time to begin with, ISO 8601 with an offset (now)")
    parser.add_argument("--primary-key", default=PRIMARY_KEY, help="(%(default)s)")
    parser.add_argument("--secondary-key", default=SECONDARY_KEY, help="(%(default)s)")
    parser.add_argument("--speed", type=float, help="simulated seconds per second (1)")
    parser.add_argument("--ignore-windows", action="store_true", default=None, help="campaigns dial at once")
    parser.add_argument("--lines", type=int, help="calls one campaign may have in progress (20)")
    parser.add_argument("--limit", type=int, help="requests per rate window (100)")
    parser.add_argument("--window", type=float, help="seconds per rate window (15)")
    parser.add_argument("--token-life", type=float, help="seconds for which a token is accepted (900)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of PATCH /_sim/config; the value is JSON, or else text",
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input ends")
    return parser


def _config(given: argparse.Namespace) -> dict[str, Any]:
    flags = ("speed", "ignore_windows", "lines", "limit", "window", "token_life")
    config = {name: getattr(given, name) for name in flags if getattr(given, name) is not None}
    for setting in given.set:
        key, _, value = setting.partition("=")
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    return config


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ISO 8601") from None
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no UTC offset: say which midday you mean")
    return instant


if __name__ == "__main__":
    sys.exit(main())
