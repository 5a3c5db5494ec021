"""Write a recorded request: python tests/record.py PROVIDER NAME BODY_FILE --origin TEXT …

It signs the body as the provider would (with the module's own `sign`), so its proof is `formula`
until an `oracle.py` or a published vector says otherwise. `--update-golden` fills in `expected`.
"""

import argparse
import json
from datetime import datetime
from pathlib import Path

from relay import provider
from relay.model import Headers, Received, Trust

ROOT = Path(__file__).parent / "providers"


def main() -> None:
    args = arguments()
    loaded = provider.load(args.provider)
    settings = dict(each.split("=", 1) for each in args.setting)
    headers = [each.split(": ", 1) for each in args.header]
    request = Received(
        body=Path(args.body).read_bytes(),
        headers=Headers(
            [("Host", "relay.example.com"), ("Content-Type", args.content_type), *headers]
        ),
        received_at=datetime.fromisoformat(args.received_at),
        url=f"https://relay.example.com/webhooks/{args.provider}",
    )
    if not args.as_it_is:
        trust = Trust((args.secret,), 300, loaded.defaults() | settings, lambda _: b"")
        request = loaded.signature.sign(request, trust)
    write(args, request, settings)


def write(args: argparse.Namespace, request: Received, settings: dict[str, str]) -> None:
    home = ROOT / args.provider
    home.mkdir(exist_ok=True)
    path = f"/webhooks/{args.provider}" + (f"/{request.url_secret}" if request.url_secret else "")
    lines = [f"POST {path} HTTP/1.1"]
    lines += [f"{name.title()}: {value}" for name, value in request.headers.pairs]
    head = "\n".join(lines).encode("latin-1")
    (home / f"{args.name}.http").write_bytes(head + b"\n\n" + request.body)
    facts = {
        "origin": args.origin,
        "proof": args.proof,
        "received_at": args.received_at,
        "secrets": [args.secret],
    }
    if request.url_secret:
        facts["url_secret"] = request.url_secret
    if settings:
        facts["settings"] = settings
    if args.fetched:
        facts["fetched"] = [
            dict(zip(("path", "file"), each.rsplit("=", 1), strict=True)) for each in args.fetched
        ]
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    (home / f"{args.name}.json").write_text(text + "\n", "utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("provider")
    parser.add_argument("name")
    parser.add_argument("body")
    parser.add_argument("--origin", required=True)
    parser.add_argument(
        "--proof", default="formula", choices=["published", "sdk", "formula", "none"]
    )
    parser.add_argument("--secret", required=True)
    parser.add_argument("--received-at", required=True, help="ISO 8601 with a zone")
    parser.add_argument("--content-type", default="application/json")
    parser.add_argument("--header", action="append", default=[], metavar="'K: V'")
    parser.add_argument("--setting", action="append", default=[], metavar="K=V")
    parser.add_argument("--fetched", action="append", default=[], metavar="PATH=FILE")
    parser.add_argument(
        "--as-it-is", action="store_true", help="the headers hold the signature already"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
