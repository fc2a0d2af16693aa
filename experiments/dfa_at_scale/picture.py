"""Put what rules render of held-out views below the views: `python picture.py RUN ... out=views.png`.

Each RUN is a folder that a run of `dataset=views` left, whose picture `views.png` has the views above their rendering.
"""

import sys
from pathlib import Path

from localearn.cli.errors import run_command
from localearn.errors import UserError
from localearn.files import atomic_write
from localearn.records import read_record

_INK = (20, 20, 20)


def main(arguments: list[str]) -> int:
    """Write the picture: the true views once, then a line of each run."""
    from PIL import Image, ImageDraw

    runs = [Path(argument) for argument in arguments if "=" not in argument]
    out = next((argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")), "views.png")
    if not runs or not all((run / "views.png").is_file() for run in runs):
        raise UserError("name folders of runs of dataset=views, each of which has its views.png")
    halves = []
    for run in runs:
        with Image.open(run / "views.png") as picture:
            whole = picture.convert("RGB")
        middle = whole.height // 2
        halves += [(None, whole.crop((0, 0, whole.width, middle)))] * (not halves)
        halves.append((read_record(run), whole.crop((0, middle, whole.width, 2 * middle))))
    canvas = Image.new("RGB", (halves[0][1].width, sum(half.height for _, half in halves)), (255, 255, 255))
    draw, top = ImageDraw.Draw(canvas), 0
    for record, half in halves:
        canvas.paste(half, (0, top))
        if record is not None:
            draw.text((half.width - 6 * len(record.algo) - 10, top), record.algo, fill=_INK)
        top += half.height
    with atomic_write(Path(out)) as temporary:
        canvas.save(temporary, format="PNG")
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
