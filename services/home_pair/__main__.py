"""The command line of the home pair."""

import argparse
import json
import os
import sys
from itertools import islice
from pathlib import Path

from home_pair.evaluate import MODELS, evaluate, model_file, questions_file, read_questions, write_questions
from home_pair.progress import say
from home_pair.requests import NATURAL_MIX, draw

_EXAMPLES = """
examples:
  python -m home_pair draw --count 5              show five training requests with their answers
  python -m home_pair build                       train and write everything, 25 minutes on two cores
  python -m home_pair build --share 0.02 --into trial --work trial   the same in two minutes, of no use
  python -m home_pair evaluate                    grade the shipped pair, 20 seconds
  python -m home_pair evaluate --json             the same figures as JSON
  python -m home_pair parity                      compare the runtime with the training code
"""
_WORK = Path(__file__).resolve().parent / "build"

_TUNING = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592"
    ":glibc.malloc.trim_threshold=17179869184",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
}
"""Two single-threaded devices keep two cores busy; huge pages and no trimming spare a quarter of the CPU."""


def _tuned() -> None:
    """Starts this program again with the environment the training needs, once."""
    if any(os.environ.get(name) != value for name, value in _TUNING.items()):
        os.execve(  # noqa: S606 - itself, with no shell between
            sys.executable, [sys.executable, "-m", "home_pair", *sys.argv[1:]], {**os.environ, **_TUNING}
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m home_pair",
        description="Trains, exports and grades the two tiny models that ship with Marginal.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train both models from a seed and write files, questions and card")
    build.add_argument("--seed", type=int, default=1)
    build.add_argument("--work", type=Path, default=_WORK, help="checkpoints; an interrupted build goes on from there")
    build.add_argument("--share", type=float, default=1.0, help="share of the training steps to run")
    evaluate = commands.add_parser("evaluate", help="grade both models on the held-out requests")
    evaluate.add_argument("--json", action="store_true", help="print every figure as JSON")
    questions = commands.add_parser("questions", help="write the held-out requests")
    card = commands.add_parser("card", help="grade both models and write their card")
    parity = commands.add_parser("parity", help="compare the runtime with the training code")
    parity.add_argument("--count", type=int, default=200)
    for command in (build, evaluate, questions, card, parity):
        command.add_argument("--into", type=Path, default=MODELS, help="directory of the models")
    drawn = commands.add_parser("draw", help="print requests with their answers, one JSON object a line")
    drawn.add_argument("--split", choices=("train", "dev", "test"), default="train")
    drawn.add_argument("--seed", type=int, default=1)
    drawn.add_argument("--count", type=int, default=20)
    return parser


def main() -> None:
    """Runs one command; what needs JAX or llama.cpp is imported by the command that needs it."""
    options = _parser().parse_args()
    if options.command == "build":
        _tuned()
        from home_pair.build import build

        build(options.into, options.work, options.seed, options.share)
    elif options.command == "questions":
        write_questions(questions_file(options.into))
    elif options.command == "card":
        from home_pair.card import write_card

        write_card(options.into)
    elif options.command == "evaluate":
        from home_pair.card import quality

        report = evaluate(options.into)
        say(json.dumps(report, indent=1) if options.json else quality(report))
    elif options.command == "parity":
        _tuned()
        from home_pair.parity import compare

        examples = read_questions(questions_file(options.into))[: options.count]
        for tier in ("small", "large"):
            say(f"{tier}: {compare(model_file(options.into, tier), examples)}")
    else:
        for example in islice(draw(options.split, options.seed, NATURAL_MIX), options.count):
            say(json.dumps({"task": example.task, "request": example.request, "answer": example.answer}))
    sys.stdout.flush()
    os._exit(0)  # the runtime's server thread takes seconds to unwind


if __name__ == "__main__":
    main()
