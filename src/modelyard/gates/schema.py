"""May a version take over another's requests? A candidate must accept everything that the serving schema accepts and answer the same outputs.

Hides the rules of widening. Pure. Law: a schema is compatible with itself, and widening composes (`tests/property/test_schema_widening.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.types import Datatype, Schema, TensorSpec, Verdict


def compatible(serving: Schema, candidate: Schema) -> Verdict:
    """`pass`, or `fail` whose evidence names every difference that would refuse or change a request in use today."""
    differences = tuple(_differences(serving, candidate))
    if differences:
        return Verdict(
            outcome="fail", rule="schema", evidence="; ".join(differences) + " (--breaking lets it)", numbers={"differences": float(len(differences))}
        )
    return Verdict(outcome="pass", rule="schema", evidence="accepts what the serving version accepts, and answers alike")


def _differences(serving: Schema, candidate: Schema) -> Iterator[str]:
    if serving.layout != candidate.layout:
        yield f"the layout was {serving.layout} and is {candidate.layout}"
    before, after = [spec.name for spec in serving.inputs], [spec.name for spec in candidate.inputs]
    yield from (f"input {name} is gone" for name in before if name not in after)
    yield from (f"input {name} is new" for name in after if name not in before)
    if before != after and sorted(before) == sorted(after):
        yield "the inputs have another order, and lists go by order"
    known = {spec.name: spec for spec in candidate.inputs}
    for spec in serving.inputs:
        if spec.name in known:
            yield from (f"input {spec.name} {difference}" for difference in _narrowed(spec, known[spec.name]))
    yield from _outputs(serving, candidate)


def _narrowed(old: TensorSpec, new: TensorSpec) -> Iterator[str]:
    if not widens(old.datatype, new.datatype):
        yield f"took {old.datatype} and takes {new.datatype}"
    if len(old.shape) != len(new.shape) or any(b not in (-1, a) for a, b in zip(old.shape, new.shape, strict=True)):
        yield f"had shape {list(old.shape)} and has {list(new.shape)}"
    if old.is_nullable and not new.is_nullable:
        yield "may no longer be missing"
    if new.categories is None or new.unknown_allowed:
        return
    if old.categories is None or old.unknown_allowed:
        yield "no longer allows unknown categories"
    elif lost := [str(item) for item in old.categories if item not in new.categories]:
        yield f"has {len(lost)} categories fewer"


def _outputs(serving: Schema, candidate: Schema) -> Iterator[str]:
    before = [(spec.name, spec.datatype, spec.shape) for spec in serving.outputs]
    after = [(spec.name, spec.datatype, spec.shape) for spec in candidate.outputs]
    if before != after:
        yield f"the outputs were {_names(serving)} and are {_names(candidate)}"
    if serving.classes != candidate.classes:
        yield "the classes differ"
    if serving.task != candidate.task:
        yield f"the task was {serving.task} and is {candidate.task}"


def _names(schema: Schema) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in schema.outputs)


def widens(old: Datatype, new: Datatype) -> bool:
    """Whether every value accepted as `old` is accepted as `new`: the wire takes integers for floats, and any float width for any other."""
    if old == new:
        return True
    kind_old, kind_new = old.rstrip("0123456789"), new.rstrip("0123456789")
    if kind_new == "FP":
        return kind_old in ("FP", "INT", "UINT")
    if kind_old not in ("INT", "UINT") or kind_new not in ("INT", "UINT"):
        return False
    bits_old, bits_new = int(old.removeprefix(kind_old)), int(new.removeprefix(kind_new))
    return bits_new >= bits_old if kind_old == kind_new else kind_old == "UINT" and bits_new > bits_old
