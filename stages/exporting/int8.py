"""Weights in int8: a graph of the same inputs and outputs that is a quarter of the size and several times as fast.

Weights have a scale for each output. Activations are quantized as the graph runs, with a scale for each token, so that
an answer does not depend on the other texts of its batch. Before that, channels of activations with large values are
divided by a factor, and the rows of the weights multiplied by it (SmoothQuant; Xiao et al. 2023, equation 4).

onnxruntime's own `quantize_dynamic` has one scale for all tokens of a batch and no such factors. docs/onnx.md compares
both on validation rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from stages.serving.onnx_model import OnnxModel

WEIGHT = 63
"""The largest weight. Seven bits, as two products of a weight and an activation of eight bits have to fit into 16 bits:
that is all that CPUs without VNNI instructions have for them. So answers are the same on every CPU."""

ACTIVATION, ZERO = 127, 128
"""The largest activation, and the one that stands for 0, as CPUs multiply unsigned activations with signed weights."""

MIGRATION = 0.5
"""How much of the spread of the activations' channels moves to the weights: the value of Xiao et al. 2023 for most
models."""

SMALLEST = 1e-6
"""Below it, a channel, a row of weights or a token counts as if it had this value."""


def quantized(path: Path, batches: Iterable[Mapping[str, np.ndarray]]) -> ir.Model:
    """The graph in a file, with the weights of its matrix products in int8, but for the last one, which is the head.

    Args:
        batches: of single texts, without padding, that show how large each activation gets.
    """
    model = ir.load(path)
    model.opset_imports.setdefault("com.microsoft", 1)
    nodes = products(model.graph)
    largest = largest_activations(path, nodes, batches)
    shared: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        shared.setdefault(node.inputs[0], []).append(node)
    for number, (given, readers) in enumerate(shared.items()):
        weights = [weight_of(node) for node in readers]
        factors = smoothing(largest[given.name], weights)
        scale, levels, added = activation(model.graph, given, factors, name=f"int8_{number}")
        model.graph.insert_before(readers[0], added)
        for place, (node, weight) in enumerate(zip(readers, weights, strict=True)):
            replace(
                model.graph, node, weight * factors[:, None], scale=scale, levels=levels, name=f"int8_{number}_{place}"
            )
    RemoveUnusedNodesPass()(model)
    return model


def products(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that multiply states with a matrix of weights, but for the last one."""
    found = [node for node in graph if node.op_type in ("MatMul", "Gemm") and of_weights(node)]
    return found[:-1]


def of_weights(node: ir.Node) -> bool:
    """Whether a node multiplies by a constant matrix, and nothing else."""
    weight = node.inputs[1].const_value
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return weight is not None and weight.shape.rank() == 2 and plain and not node.attributes.get_int("transA", 0)


def weight_of(node: ir.Node) -> np.ndarray:
    """The matrix by which a node multiplies, (inputs, outputs)."""
    weight = node.inputs[1].const_value.numpy()
    return weight.T if node.attributes.get_int("transB", 0) else weight


def largest_activations(
    path: Path, nodes: Sequence[ir.Node], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The largest absolute value of each channel of what the nodes read, (channels,), by the value's name."""
    model = ir.load(path)
    read = list(dict.fromkeys(node.inputs[0].name for node in nodes))
    values = {output.name: output for node in model.graph for output in node.outputs}
    model.graph.outputs.extend(values[name] for name in read)
    with TemporaryDirectory() as scratch:
        ir.save(model, Path(scratch, "model.onnx"), external_data="model.onnx.data")
        running = OnnxModel(Path(scratch, "model.onnx"))
        largest = {name: np.zeros(0) for name in read}
        for batch in batches:
            for name, found in zip(read, running(batch, read), strict=True):
                now = np.abs(found).reshape(-1, found.shape[-1]).max(axis=0)
                largest[name] = np.maximum(largest[name], now) if largest[name].size else now
    return largest


def smoothing(largest: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """What each channel of the activations is divided by, (channels,); the geometric mean is 1."""
    of_weights = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factors = np.maximum(largest, SMALLEST) ** MIGRATION / np.maximum(of_weights, SMALLEST) ** (1 - MIGRATION)
    return (factors / np.exp(np.log(factors).mean())).astype(np.float32)


def activation(
    graph: ir.Graph, given: ir.Value, factors: np.ndarray, *, name: str
) -> tuple[ir.Value, ir.Value, list[ir.Node]]:
    """Each token's scale, its quantized channels, and the nodes that compute them."""
    smooth = ir.node("Mul", [given, constant(graph, f"{name}_factors", 1 / factors)])
    size = ir.node("Abs", smooth.outputs)
    axis = constant(graph, f"{name}_axis", np.array([-1], dtype=np.int64))
    largest = ir.node("ReduceMax", [*size.outputs, axis], {"keepdims": 1})
    scale = ir.node("Max", [*largest.outputs, constant(graph, f"{name}_least", np.array(SMALLEST, dtype=np.float32))])
    share = ir.node("Div", [*smooth.outputs, *scale.outputs])
    levels = ir.node("QuantizeLinear", [*share.outputs, *steps(graph, name)])
    return scale.outputs[0], levels.outputs[0], [smooth, size, largest, scale, share, levels]


def steps(graph: ir.Graph, name: str) -> Iterator[ir.Value]:
    """The step between two levels of an activation that lies between -1 and 1, and the level of 0."""
    yield constant(graph, f"{name}_step", np.array(1 / ACTIVATION, dtype=np.float32))
    yield constant(graph, f"{name}_zero", np.array(ZERO, dtype=np.uint8))


def replace(
    graph: ir.Graph, node: ir.Node, weight: np.ndarray, *, scale: ir.Value, levels: ir.Value, name: str
) -> None:
    """Put the product of the quantized activations and weights in the place of a node.

    Args:
        scale, levels: see `activation`.
    """
    step = np.maximum(np.abs(weight).max(axis=0), SMALLEST) / WEIGHT
    rounded = np.rint(weight / step).astype(np.int8)
    activation_step, zero = steps(graph, name)
    operands = [
        levels,
        constant(graph, f"{name}_weight", rounded),
        activation_step,
        constant(graph, f"{name}_steps", step.astype(np.float32)),
        zero,
    ]
    product = ir.node("MatMulIntegerToFloat", operands, domain="com.microsoft")
    added = [product, ir.node("Mul", [*product.outputs, scale])]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        added.append(ir.node("Add", [*added[-1].outputs, node.inputs[2]]))
    old, new = node.outputs[0], added[-1].outputs[0]
    new.shape, new.dtype = old.shape, old.dtype
    graph.insert_before(node, added)
    ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)


def constant(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """A new constant of the graph."""
    tensor = ir.tensor(np.ascontiguousarray(values))
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
