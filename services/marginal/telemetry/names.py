"""Every span, attribute, event and log name we write, once.

`gen_ai.*` follows the GenAI semantic conventions and, for cost, the open proposal semantic-conventions-genai#443;
`rpc.*`, `server.*` and `error.type` follow the RPC conventions; what neither names is `marginal.*`. Content attributes
(`gen_ai.input.messages` and their like) are not here: no span and no metric holds a prompt or an answer. Cost is on
attempts only, so that a sum over spans counts nothing twice; the model's own generation spans repeat the tokens, not
the cost.
"""

from typing import Final

SCOPE: Final = "marginal"
"""The instrumentation scope of all spans."""

# Resource
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# gRPC calls
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# Attempts and generations
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
GEN_AI_USAGE_COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
GEN_AI_USAGE_COST_SOURCE: Final = "gen_ai.usage.cost.source"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 (a language model's)

# Decisions and costs
TIER: Final = "marginal.tier"
ATTEMPT_OUTCOME: Final = "marginal.attempt.outcome"
CANCELLED: Final = "marginal.cancelled"
ENGINE_PROMPT_SECONDS: Final = "marginal.engine.prompt_seconds"
ENGINE_GENERATION_SECONDS: Final = "marginal.engine.generation_seconds"
ENGINE_ENDPOINT: Final = "marginal.engine.endpoint"
"""Host and port of one of several engines, nothing else of its URL."""
ENGINE_OTHER_ENDPOINT: Final = "marginal.engine.other_endpoint"
ENGINE_EVENT: Final = "marginal.engine.event"
ENGINE_BECAUSE: Final = "marginal.engine.because"
ENGINE_OUT_SECONDS: Final = "marginal.engine.out_seconds"
VERDICT: Final = "marginal.verdict"
REASON: Final = "marginal.reason"
SCORE_NAME: Final = "marginal.score.name"
SCORE: Final = "marginal.score"
THRESHOLD: Final = "marginal.threshold"
TOKENS_SEEN: Final = "marginal.tokens_seen"
CENSORED: Final = "marginal.censored"
BOUNDED: Final = "marginal.bounded"
EVIDENCE_GAP: Final = "marginal.evidence_gap"
TASK: Final = "marginal.task"
AGREES: Final = "marginal.agrees"
POLICY: Final = "marginal.policy"
POLICY_VERSION: Final = "marginal.policy.version"
DEGRADED: Final = "marginal.degraded"
COST_NANOS: Final = "marginal.cost.nanos"
COST_TOTAL_NANOS: Final = "marginal.cost.total_nanos"
COST_ALWAYS_LARGE_NANOS: Final = "marginal.cost.always_large_nanos"
TENANT: Final = "marginal.tenant"
"""Also the key of the tenant in W3C baggage."""
REQUEST_ID: Final = "marginal.request_id"

# Span events
DECISION_EVENT: Final = "marginal.decision"
ENGINE_RETRY: Final = "engine.retry"
ENGINE_EJECTED: Final = "engine.ejected"

# Metrics
REQUESTS: Final = "marginal.requests"
COST: Final = "marginal.cost"
GEN_AI_CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105
"""A router tells it by attempt, a model service by generation: two accounts of the same tokens."""
SHADOWS: Final = "marginal.shadows"
RELOADS: Final = "marginal.policy.reloads"
REREADS: Final = "marginal.file.rereads"
JOURNAL: Final = "marginal.journal.size"
FILE: Final = "marginal.file"
"""Which one was read anew: "tenants", "keys", "server certificates", "client certificates"; never its path."""
OTHER_SAMPLING: Final = "marginal.other_sampling"
RESULT: Final = "marginal.result"
ENGINE_EVENTS: Final = "marginal.engine.events"

# Log events
COST_RECORD: Final = "cost_record"
GENERATION: Final = "generation"
TELEMETRY_FAILED: Final = "telemetry_failed"
ENDPOINT_EJECTED: Final = "endpoint_ejected"
ENDPOINT_TRIED: Final = "endpoint_tried"
ENDPOINT_RETURNED: Final = "endpoint_returned"
OTHER_SAMPLING_SEEN: Final = "other_sampling"
POLICIES_RELOADED: Final = "policies_reloaded"
POLICIES_REFUSED: Final = "policies_refused"
FILE_REREAD: Final = "file_reread"
FILE_REFUSED: Final = "file_refused"

# Values
CHAT: Final = "chat"
INPUT: Final = "input"
OUTPUT: Final = "output"
GRPC: Final = "grpc"
PROVIDER: Final = "marginal"
COST_SOURCE_LOCAL: Final = "local"
"""The cost is reckoned from the operator's price list, not reported by a provider."""
