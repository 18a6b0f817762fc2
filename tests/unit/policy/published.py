"""The paper's cascade, transcribed from its description by hand: what `policy.horizon` is compared with.

Source: guillemram97/margin_llms, utils_method.make_cascade. Nothing of `marginal` is used here.
"""

from collections.abc import Sequence

EXHAUSTED, SMALL, LARGE, DIRECT = "exhausted", "small", "large", "large directly"


def cascade(
    margins: Sequence[float],
    *,
    budget: float,
    cost1: float,
    cost2: float,
    costs1: Sequence[float],
    costs2: Sequence[float],
    large_is_better: bool = True,
) -> tuple[list[str], float]:
    """Who answers each query in order, and what is left of the budget.

    `cost1` and `cost2` are the mean costs the rules reckon with, `costs1` and `costs2` what each query is charged.
    """
    queries = len(margins)
    total_compute = budget * queries
    p = min((budget - cost1) / cost2, 1)
    seen: list[float] = []
    answered = []
    for idx, margin in enumerate(margins):
        if total_compute >= cost1:
            if total_compute - (queries - idx) * cost1 <= 0:
                total_compute -= costs1[idx]
                answered.append(SMALL)
                seen.append(margin)
                seen.sort()
            elif total_compute - (queries - idx) * cost2 >= 0 and large_is_better:
                total_compute -= costs2[idx]
                answered.append(DIRECT)
            else:
                total_compute -= costs1[idx]
                seen.append(margin)
                seen.sort()
                if len(seen) > 20:
                    threshold = max(seen) + 10 if int(len(seen) * p) >= len(seen) else seen[int(len(seen) * p)]
                else:
                    threshold = -1
                if margin < threshold and total_compute - cost2 >= 0:
                    total_compute -= costs2[idx]
                    answered.append(LARGE)
                else:
                    answered.append(SMALL)
        else:
            answered.append(EXHAUSTED)
    return answered, total_compute
