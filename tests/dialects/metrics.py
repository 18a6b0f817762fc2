"""What each engine says at `/metrics` of the requests it runs, in the text format of Prometheus."""

from collections.abc import Callable

from aiohttp import web

GAUGES = {
    "vllm": 'vllm:num_requests_running{engine="0",model_name="dialect/vllm"}',
    "sglang": 'sglang:num_running_reqs{model_name="dialect/sglang"}',
    "llama-server": "llamacpp:requests_processing",
    "tgi": "tgi_batch_current_size",
}


def metrics(dialect: str, running: Callable[[], int]) -> Callable[[web.Request], object]:
    """A handler that tells how many generations go on now."""
    gauge = GAUGES[dialect]
    name = gauge.partition("{")[0]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=f"# HELP {name} Requests now.\n# TYPE {name} gauge\n{gauge} {float(running())}\n")

    return handler
