"""`python -m tools.report_picture`: the picture of the report that the README shows.

Needs Chromium, and the report that `make demo` wrote. Header, score histogram and three parts of the
contact sheet are photographed; the rest of the page is hidden.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

#: Rules that hide what the picture does not show; `.strip` is one tenth of the contact sheet.
STYLE = """<style>
body > nav, header nav, main > section:not(#scores, #sheet), #scores > :not(h2, figure:first-of-type),
#sheet > .note, .strip:not(:nth-of-type(1), :nth-of-type(5), :nth-of-type(10))
{ display: none !important }
</style></head>"""
WIDTH, HEIGHT = 1180, 3000  # of the window, in pixels; the height is cut to the content
SHOWN = 820  # width of the picture
MAX_BYTES = 150_000


def photograph(page: Path) -> Image.Image:
    """Return a screenshot of the page, `SHOWN` pixels wide, without the empty rows at its end."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium is not on PATH (Debian: apt-get install chromium)")
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        copy, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        copy.write_text(text.replace("</head>", STYLE, 1), encoding="utf-8")
        switches = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        size = f"--window-size={WIDTH},{HEIGHT}"
        words = [chromium, *switches, size, f"--screenshot={picture}", copy.as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        pixels = np.asarray(Image.open(picture).convert("RGB"))
    filled = (pixels != pixels[-1]).any(axis=(1, 2)).nonzero()[0]
    picture = Image.fromarray(pixels[: filled[-1] + 16])
    return picture.resize((SHOWN, round(picture.height * SHOWN / WIDTH)), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("demo/report.html"))
    parser.add_argument("--output", type=Path, default=Path("docs/report.jpg"))
    arguments = parser.parse_args()
    picture = photograph(arguments.report)
    picture.save(arguments.output, quality=76, optimize=True, progressive=True)
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {picture.width} x {picture.height}, {size:,} bytes")
    if size > MAX_BYTES:
        sys.exit(f"{size:,} bytes are more than {MAX_BYTES:,}: lower the quality")


if __name__ == "__main__":
    main()
