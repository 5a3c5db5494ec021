"""The README's picture: what `relay demo` prints, as an SVG. Run by `make pictures`."""

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

SHOWN = ("razorpay", "mollie", "gumroad")
WIDTH = 112


def main() -> None:
    """Run the demo for a few providers and draw its output."""
    command = [sys.executable, "-m", "relay", "demo"]
    for name in SHOWN:
        command += ["--only", name]
    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TTY_INTERACTIVE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    console = Console(record=True, width=WIDTH, file=Path(os.devnull).open("w", encoding="utf-8"))
    console.print(Text.from_ansi(f"$ relay demo\n{done.stdout.rstrip()}"))
    svg = console.export_svg(title="relay demo")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # nothing is fetched to show it
    Path(__file__).with_name("demo.svg").write_text(svg, "utf-8")


if __name__ == "__main__":
    main()
