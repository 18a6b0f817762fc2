"""Makes real calls through the router and checks that each cost record adds up; `helm test` runs it.

Arguments: the router as HOST:PORT, and the modes to ask in.
"""

import json
import subprocess
import sys

QUESTION = "set a timer for five minutes"
TIMEOUT_SECONDS = "60"


def fault(answer: dict) -> str:
    """What is wrong with an answer, "" when nothing is."""
    attempts = answer["attempts"]
    if not answer["text"] or not attempts:
        return "it has no text, or nobody was asked"
    if answer["degraded"]:
        return f"it is degraded: {answer['degraded']}"
    if attempts[-1]["tier"] != answer["tier"] or attempts[-1]["outcome"] != "kept":
        return "the tier that answered is not the attempt that was kept"
    if not all(attempt["output_tokens"] > 0 for attempt in attempts if attempt["outcome"] == "kept"):
        return "the attempt that was kept has no tokens"
    if answer["total_nanos"] != sum(attempt["cost_nanos"] for attempt in attempts):
        return "its attempts do not sum up to its total"
    return ""


def main(target: str, *modes: str) -> int:
    for mode in modes:
        command = [
            "marginal",
            "ask",
            QUESTION,
            "--json",
            "--mode",
            mode,
            "--target",
            target,
            "--timeout",
            TIMEOUT_SECONDS,
        ]
        asked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if asked.returncode:
            return asked.returncode
        answer = json.loads(asked.stdout)
        if why := fault(answer):
            print(f"{mode}: {why}: {asked.stdout}", file=sys.stderr)
            return 1
        costs = " + ".join(str(attempt["cost_nanos"]) for attempt in answer["attempts"])
        total = f"{answer['total_nanos']} nano-{answer['currency']}"
        print(f"{mode}: {answer['text']!r} by {answer['tier']}, {costs} = {total}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
