"""What a lower precision costs: the same pictures in fp32 and in each candidate.

In: verified files with the candidates' graphs, golden outputs, pictures. Out: a ``Judged`` for each candidate.
Errors: ``BundleError``, where one cannot be run.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from engines.agreement import golden_logits
from engines.golden import Golden
from engines.manifest import Manifest
from engines.parity.evaluation import Evaluated, Evaluation, evaluate
from engines.parity.pictures import Labelled
from engines.quantization.request import REFERENCE
from engines.runtime import Runtime, open_candidate
from engines.runtime.selection import Candidate


@dataclass(frozen=True)
class Judged:
    """One candidate.

    Attributes:
        candidate: the runtime, its file and its precision.
        evaluated: on the pictures; differences are from fp32 on ONNX Runtime.
        golden_max_difference: of a logit from its golden output.
    """

    candidate: Candidate
    evaluated: Evaluated
    golden_max_difference: float

    @property
    def label(self) -> str:
        """``int8 on onnxruntime-cpu``."""
        return f"{self.candidate.precision} on {self.candidate.runtime}"


@dataclass(frozen=True)
class Verdict:
    """All candidates on the same pictures."""

    evaluation: Evaluation
    judged: tuple[Judged, ...]

    @property
    def reference_auc(self) -> float:
        """Of fp32."""
        return self.evaluation.results[0].auc


def judge(
    candidates: Sequence[Candidate],
    manifest: Manifest,
    files: Mapping[str, bytes],
    golden: Golden,
    pictures: Sequence[Labelled],
) -> Verdict:
    """Open every candidate beside the fp32 model, and run the pictures and the golden outputs."""
    reference = Candidate(REFERENCE, (manifest.model_file,), "fp32", on_gpu=False)
    with ExitStack() as opened:
        runtimes: list[Runtime] = []
        for candidate in (reference, *candidates):
            runtimes.append(open_candidate(candidate, manifest, files, 1))
            opened.callback(runtimes[-1].close)
        evaluation = evaluate(runtimes, manifest, pictures)
        far = [
            max(golden_logits(one, manifest, golden).differences(golden).values())
            for one in runtimes[1:]
        ]
    judged = map(Judged, candidates, evaluation.results[1:], far)
    return Verdict(evaluation, tuple(judged))
