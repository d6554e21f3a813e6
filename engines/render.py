"""Bundles as tables for people, and as plain facts for scripts."""

from collections.abc import Iterator, Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from engines.manifest import Manifest
from engines.verify import Bundle

Facts = dict[str, object]  # what json.dumps takes


def verified_facts(bundle: Bundle) -> Facts:
    """What a verified bundle turned out to be."""
    manifest, runtime = bundle.manifest, bundle.runtime
    return {
        "bundle": str(bundle.directory),
        "ok": True,
        "name": manifest.name,
        "version": manifest.version,
        "sha256": bundle.sha256,
        "files": len(manifest.files),
        "bytes": sum(entry.bytes for entry in manifest.files),
        "runtime": runtime.name,
        "precision": runtime.precision,
        "engine_sha256": runtime.engine_sha256,
        "golden_max_difference": bundle.golden_max_difference,
        "tolerance": manifest.tolerances[runtime.precision],
        "signed_by": bundle.signed_by or "not checked",
    }


def verified_table(facts: Mapping[str, object]) -> Table:
    """The facts of a verified bundle, one a row."""
    rows = {key.replace("_", " "): str(value) for key, value in facts.items() if key != "ok"}
    return _table("verified: files, runtime and golden outputs agree", rows)


def manifest_tables(manifest: Manifest, sha256: str) -> Iterator[Table]:
    """What a manifest says, a table a subject."""
    yield _table(f"{manifest.name} {manifest.version}", _identity(manifest, sha256))
    yield _thresholds(manifest)
    if manifest.metrics:
        yield _metrics(manifest)
    yield _table("lineage", _lineage(manifest))


def _identity(manifest: Manifest, sha256: str) -> dict[str, str]:
    spec, crops, calibration = manifest.input, manifest.preprocess, manifest.calibration
    size_bytes = sum(entry.bytes for entry in manifest.files)
    return {
        "sha256": sha256,
        "created": manifest.created_at.isoformat(),
        "files": f"{len(manifest.files)}, {size_bytes} bytes",
        "model": f"{manifest.model_file} ({manifest.precision})",
        "runtimes": ", ".join(manifest.runtimes),
        "input": f"{spec.dtype} {spec.layout} {spec.height_px} x {spec.width_px} px, "
        f"batch {spec.batch_min} to {spec.batch_max}",
        "preprocessing": f"version {crops.version}, {crops.crop_policy}, "
        f"up to {crops.max_crops} crops of {crops.crop_px} px",
        "calibration": f"{calibration.id}: sigmoid({calibration.scale:.4g} x logit "
        f"{calibration.bias:+.4g}), {calibration.method} on {calibration.fitted_on}",
    }


def _lineage(manifest: Manifest) -> dict[str, str]:
    lineage = manifest.lineage
    return {
        "code commit": lineage.code_commit,
        "data digest": lineage.data_digest,
        "teacher": lineage.teacher_id,
        "seed": str(lineage.seed),
        "created by": lineage.created_by,
    }


def _thresholds(manifest: Manifest) -> Table:
    table = _columns(
        "thresholds (score >=)", "set", "band", "threshold", "false positives", "of", "measured on"
    )
    for one in manifest.threshold_sets:
        mark = " (default)" if one.id == manifest.default_threshold_set else ""
        for band, point in (("review", one.review), ("block", one.block)):
            table.add_row(
                one.id + mark,
                band,
                f"{point.threshold:.4f}",
                f"{point.fpr:.2%} ({point.fpr_ci_low:.2%} to {point.fpr_ci_high:.2%})",
                str(point.n_real),
                escape(one.measured_on),
            )
    return table


def _metrics(manifest: Manifest) -> Table:
    table = _columns("metrics", "generator", "condition", "seen", "fake", "real", "AUC", "AP")
    for one in manifest.metrics:
        table.add_row(
            escape(one.generator),
            one.condition,
            "yes" if one.seen_in_training else "no",
            str(one.n_fake),
            str(one.n_real),
            f"{one.auc:.3f}",
            f"{one.ap:.3f}",
        )
    return table


def _columns(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _table(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, escape(value))
    return table
