from evidence import blind, sure
from marginal.backends.scripted import Script, ScriptedModel
from marginal.entrypoints.engines import short
from marginal.entrypoints.model import until_evidence
from marginal.errors import TierUnavailable
from marginal.telemetry.recorder import GenerationRecorder
from marginal.tokens import Generation, Tier
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.validation import Limits
from unit.telemetry.spans import MemoryLog, MemoryTracing

SEEING, BLIND = Script((sure(0.9),) * 4), Script((blind(),) * 4)
BROKEN = Script((), fault=TierUnavailable("still warming up"))


async def probed(tier: Tier, *scripts: Script) -> tuple[ModelServicer, MemoryLog, int]:
    """Waits for evidence of a model that answers by each script in turn, the last one for ever."""
    left, log = list(scripts), MemoryLog()

    def script(_: Generation) -> Script:
        return left.pop(0) if len(left) > 1 else left[0]

    model = ScriptedModel(script)
    tracing = MemoryTracing().tracing
    recorder = GenerationRecorder(tracing.spans, log.logs.log, tracing.metrics, tier=tier)
    servicer = ModelServicer(model, name="test", limits=Limits(), recorder=recorder)
    await until_evidence(tier, model, servicer, log.logs.log, again_seconds=0.001)
    return servicer, log, len(model.runs)


async def test_a_small_tier_is_probed_until_it_proves_its_evidence() -> None:
    servicer, log, probes = await probed(Tier.SMALL, BROKEN, BROKEN, BLIND, SEEING)
    assert servicer.evidence.proven
    assert probes == 3 + 2  # evidence takes a second question
    because = [event["because"] for event in log.events()]
    assert len(because) == 2
    assert "still warming up" in because[0]
    assert "log-probabilities" in because[1]


async def test_a_large_tier_needs_no_evidence_but_an_answer() -> None:
    servicer, _, probes = await probed(Tier.LARGE, BROKEN, BLIND)
    assert not servicer.evidence.proven
    assert probes == 2


def test_a_model_is_called_by_its_name_or_by_its_file() -> None:
    assert short("qwen2.5-coder-0.5b") == "qwen2.5-coder-0.5b"
    assert short("models/tiny.Q4.gguf") == "tiny.Q4"
    assert short("hub:owner/repo@main/tiny.gguf#abc") == "tiny"
