"""A simulated phone that gets hot: Termux's battery command says what the test wants."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_SCRIPT = """\
#!/bin/sh
echo $$ >> '{folder}/asked'
if [ -e '{folder}/hangs' ]; then exec sleep 600; fi
cat '{folder}/battery.json'
"""
# The program with times of the governor a fraction of the usual ones, since tests are short.
_HURRIED = """\
import sys
from qwen_edge.host import battery_poll
from qwen_edge.session import governing, governor_rules
battery_poll.INTERVAL /= {factor}
battery_poll.STALE /= {factor}
governing.INTERVAL /= {factor}
governor_rules.MOST_PAUSE /= {factor}
for mode, ladders in governor_rules.LADDERS.items():
    governor_rules.LADDERS[mode] = tuple(
        each._replace(rise=each.rise / {factor}, fall=each.fall / {factor}) for each in ladders
    )
from qwen_edge.cli.app import run_program
sys.exit(run_program(sys.argv[1:]))
"""


class HotPhone:
    """Termux's battery command, in a folder that goes in front of the others.

    It begins at 31 degrees, 80 % and unplugged.

    Args:
        folder: an empty one, or one to be made.

    Attributes:
        environ: variables that make a program take this for a phone with Termux:API.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "bin" / "termux-battery-status"
        program.parent.mkdir(parents=True)
        program.write_text(_SCRIPT.format(folder=folder))
        program.chmod(0o755)
        self.environ = {
            "TERMUX_VERSION": "0.118.1",
            "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
        self.battery()

    def battery(
        self, temperature: float = 31.0, percentage: float = 80, plugged: str = "UNPLUGGED"
    ) -> None:
        """Sets what the command says from now on.

        Args:
            temperature: in degrees Celsius.
            percentage: how full it is.
            plugged: ``UNPLUGGED``, ``PLUGGED_AC`` and the like.
        """
        self.says(
            json.dumps(
                {
                    "health": "GOOD",
                    "percentage": percentage,
                    "plugged": plugged,
                    "status": "DISCHARGING" if plugged == "UNPLUGGED" else "CHARGING",
                    "temperature": temperature,
                    "current": -412000,
                }
            )
        )

    def says(self, text: str) -> None:
        """Sets the very text that the command writes from now on."""
        new = self._folder / "battery.new"
        new.write_text(text)
        new.replace(self._folder / "battery.json")

    def hangs(self) -> None:
        """From now on the command never answers, as without the Termux:API app."""
        (self._folder / "hangs").touch()

    @property
    def asked(self) -> int:
        """How often the command was started."""
        return len(self.processes)

    @property
    def processes(self) -> list[int]:
        """The process numbers of the command's starts."""
        try:
            return [int(line) for line in (self._folder / "asked").read_text().split()]
        except OSError:
            return []


def hurried(factor: float) -> tuple[str, ...]:
    """The command line of ``qwen-edge`` with a governor whose times are that much shorter."""
    return (sys.executable, "-c", _HURRIED.format(factor=factor))
