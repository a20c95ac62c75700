"""`binarize`: an existing PyTorch network with binary convolutions and linear layers.

Layers are exchanged where they stand, so that the model's own `forward` goes on working: a
convolution becomes a `Sequential` of a sign and a binary convolution under the same name. What
`forward` itself writes (an addition, a concatenation, `F.relu`) stays as it is.
"""

from __future__ import annotations

import copy
import fnmatch
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from signbit.errors import BinarizeError
from signbit.nn import (
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    QuantConv2d,
    QuantLinear,
    RPReLU,
    RSign,
    Sign,
)
from signbit.nn.geometry import against_padding, conv_arguments
from signbit.nn.modes import evaluating
from signbit.quantizers import nearest_name

__all__ = ["METHODS", "Binarization", "LayerChange", "Method", "binarize"]


@dataclass(frozen=True)
class Method:
    """What a published method says of one layer.

    Attributes:
        surrogate: the sign's gradient (`signbit.quantizers.get_surrogate`).
        learned_threshold: whether every sign has one (`RSign`).
        weight_quantizer: of the weights (`signbit.quantizers.get_weight_quantizer`).
        rprelu: whether activations become `RPReLU`; else they go, and the sign alone bends.
        paper: where it is from.
    """

    surrogate: str
    learned_threshold: bool
    weight_quantizer: str
    rprelu: bool
    paper: str


METHODS: dict[str, Method] = {
    "xnor": Method("clipped_identity", False, "mean_abs", False, "XNOR-Net, arXiv 1603.05279"),
    "bireal": Method("approx_sign", False, "mean_abs", False, "Bi-Real Net, arXiv 1808.00278"),
    "reactnet": Method("approx_sign", True, "mean_abs", True, "ReActNet, arXiv 2003.03488"),
    "bineal": Method("clipped_identity", False, "sign", True, "BiNeal, arXiv 2202.03716"),
}


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer: its path and class, what it is now, and why."""

    path: str
    was: str
    now: str
    why: str


@dataclass(frozen=True)
class Binarization:
    """What `binarize` has done, in the order in which the layers run as far as that is known."""

    method: str
    layers: tuple[LayerChange, ...]

    @property
    def binary(self) -> list[str]:
        """Paths of the layers that are binary now."""
        return [layer.path for layer in self.layers if layer.now == "binary"]

    @property
    def eight_bit(self) -> list[str]:
        """Paths of the layers that are 8-bit now."""
        return [layer.path for layer in self.layers if layer.now == "8-bit"]

    def __str__(self) -> str:
        rows = [("layer", "was", "now", "why")]
        rows += [(la.path, la.was, la.now, la.why) for la in self.layers]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
            for row in rows
        ]
        head = f"{self.method} ({METHODS[self.method].paper}): "
        return "\n".join(
            [f"{head}{len(self.binary)} layers binary, {len(self.eight_bit)} 8-bit", *lines]
        )


def binarize(
    model: nn.Module,
    method: str = "reactnet",
    *,
    skip: str | Iterable[str] | None = None,
    example_input: Tensor | None = None,
) -> nn.Module:
    """A copy of a PyTorch network whose convolutions and linear layers are binary, to be trained.

    Every `Conv2d` and `Linear` becomes a sign and a `BinaryConv2d` or `BinaryLinear`, padding with
    zeros as before. The weights are taken over as latent weights, biases as they are. The copy's
    attribute `binarization` says what was done, layer by layer (`print(net.binarization)`).
    A `ConvTranspose2d` whose kernel is its stride becomes a 1x1 convolution and a `PixelShuffle`,
    which is the same map. Shared layers and shared weights stay shared.

    Args:
        model: any module; it stays as it is.
        method: what the sign, the weights and the activations become. The network's topology stays
            the model's own, so of each method this is the layer alone:

            * `xnor` (XNOR-Net, arXiv 1603.05279): sign with a clipped identity's gradient; weights
              `sign(w) * mean|w|`. Not part of it: the scales of activations, the order of layers.
            * `bireal` (Bi-Real Net, arXiv 1808.00278): sign with a piecewise polynomial's
              gradient; weights and their magnitude-aware gradient as above. Not part of it: the
              shortcut around every convolution, pre-training with clips.
            * `reactnet` (ReActNet, arXiv 2003.03488): as `bireal`, with a learned threshold a
              channel before each sign (`RSign`), and `RPReLU`. Not part of it: its shortcuts, the
              distributional loss, training in two stages (`signbit.nn.set_binary_weights`).
            * `bineal` (BiNeal networks, arXiv 2202.03716, which came without code): sign as in
              `xnor`, weights `sign(w)` without a scale, so that a batch norm should follow, and
              `RPReLU`. Not part of it: its block, the 4-bit addition.

            Activations that let no (or hardly any) negative number pass, or that cannot be compiled
            (ReLU, GELU, SiLU, ...) would make the next sign constant: they become `RPReLU`, or go
            (`xnor` and `bireal`, whose blocks have none). `LeakyReLU` becomes `PReLU`.
            An RPReLU needs the number of channels: without `example_input`, or where an activation
            is shared by maps of several widths, it is a `PReLU` with one slope.
        skip: paths, or glob patterns of paths, of the layers that stay at 8 bits (`QuantConv2d`,
            `QuantLinear`; calibrate them with `signbit.calibrate`, or train); a path of a block
            means all layers in it. None: the first and the last layer, as published binary networks
            have it. What is given replaces that: name them too; `()` makes every layer binary.
        example_input: a batch [N, C, H, W] that tells in which order layers run, how many channels
            activations have, and which signs never see a negative number (behind `F.relu` in
            `forward`, say): these get a learned threshold that starts at the mean of what they
            see. Without it the order is that of a trace, or of definition where the model cannot
            be traced, and a sign behind a function that gives no negative number starts at 0.4, the
            mean of a rectified standard normal. In front of a linear layer one threshold serves all
            features, because these may be the pixels of a flattened map.

    Raises:
        BinarizeError: a layer of another kind with weights (other transposed convolutions, 1-D and
            3-D ones, recurrent and attention layers), a layer with a `forward`, hooks or a
            parametrization of its own, another padding mode than zeros, a padding that is not
            symmetric (each named, with what to do), a pattern in `skip` that matches no layer, an
            unknown method, a model that is binary already or fails on the example, an example that
            is no tensor or is not finite, or gives NaN or infinity in front of a sign.
    """
    if not isinstance(model, nn.Module):
        raise BinarizeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if example_input is not None:
        _check_example(example_input)
    if method not in METHODS:
        hint = nearest_name(str(method), list(METHODS))
        raise BinarizeError(f"unknown method {method!r}{hint}; known: {', '.join(METHODS)}")
    _check(model)
    net = copy.deepcopy(model)
    seen = _watch(net, example_input)
    kept = _kept(net, seen, skip)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights before they get theirs
        exchange = _Exchange(method, seen, kept)
        for layer in seen.order:
            exchange.take(layer)
        net = exchange.put_into(net)
    if example_input is not None:
        exchange.start_thresholds(net, example_input)
    net.binarization = exchange.report()
    return net


# --- what can be taken ---

_CONVERTED = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
_OTHERS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (
        (nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d),
        "only 2-D convolutions can be binary: for one of length L use a Conv2d with kernel (1, L)",
    ),
    (
        (nn.RNNBase, nn.RNNCellBase),
        "recurrent layers cannot be binary: keep them outside of the model",
    ),
    (
        (nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer),
        "attention cannot be binary: use convolutions, or keep it outside of the model",
    ),
    ((nn.Bilinear,), "a bilinear layer cannot be binary: use Linear layers"),
    ((nn.Embedding, nn.EmbeddingBag), "embeddings cannot be binary: keep them outside the model"),
)
# Activations without negative values worth a sign, or without a form in the program.
_RECTIFIERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Softplus,
)  # fmt: skip


def _check_example(example: object) -> None:
    """Raise BinarizeError unless an example can be run."""
    if not isinstance(example, Tensor):
        raise BinarizeError(
            f"example_input must be a torch.Tensor, got {type(example).__name__}: for an array, "
            "torch.from_numpy(array)"
        )
    if not torch.isfinite(example).all():
        raise BinarizeError("example_input holds NaN or infinity")


def _check(model: nn.Module) -> None:
    """Raise BinarizeError naming every layer that cannot be taken."""
    problems = []
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    for path, layer in model.named_modules():
        reason = _reason_against(layer)
        if isinstance(layer, nn.ConvTranspose2d) and owners[id(layer.weight)] > 1:
            reason = "its weight is also another layer's, but will be rearranged: give it its own"
        if reason:
            problems.append(f"{path or 'the model'} ({type(layer).__name__}): {reason}")
    if problems:
        count = len(problems)
        head = "the model cannot be taken" if count == 1 else f"{count} layers cannot be taken"
        raise BinarizeError("\n  ".join([f"{head}:", *problems]))


def _reason_against(layer: nn.Module) -> str | None:
    if isinstance(layer, BinaryLayer | Sign | RSign):
        return "it is binary already: give binarize the network that it was made from"
    if isinstance(layer, torch.jit.ScriptModule):
        return "it is compiled by TorchScript: give the Python module that it was made from"
    for kinds, reason in _OTHERS:
        if isinstance(layer, kinds):
            return reason
    if not isinstance(layer, _CONVERTED):
        return None
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "it has no weights yet: run the model once before"
    if parametrize.is_parametrized(layer):
        return "its weight is parametrized: call torch.nn.utils.parametrize.remove_parametrizations"
    if not _keeps_forward(layer, _CONVERTED):
        kind = next(k for k in type(layer).__mro__ if k in _CONVERTED)
        return f"it overrides the forward of {kind.__name__}: use that class itself"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has hooks, which would be lost (torch.nn.utils.weight_norm is one): remove them"
    if isinstance(layer, nn.Linear):
        return None
    reason = against_padding(layer)
    return _against_transposed(layer) if layer.transposed and not reason else reason


def _against_transposed(layer: nn.ConvTranspose2d) -> str | None:
    height, width = layer.kernel_size
    plain = layer.padding == layer.output_padding == (0, 0) and layer.dilation == (1, 1)
    if plain and layer.stride == (height, width) and height == width:
        return None
    return (
        "a transposed convolution can only be taken where its square kernel is its stride, "
        "without padding and dilation: use that, or torch.nn.Upsample and a Conv2d"
    )


# --- which layers, in which order ---


@dataclass
class _Seen:
    """What is known of a model without changing it.

    Attributes:
        order: every layer once, as they run; those that do not, or of which that is not known, last
            and in the order of their definition.
        ran: those that are known to run.
        channels: for each activation, the channels of the maps that it saw; 0 for other tensors.
        positive: layers whose input is made by a function that gives no negative number.
    """

    order: list[nn.Module]
    ran: set[nn.Module]
    channels: dict[nn.Module, set[int]]
    positive: set[nn.Module]


def _watch(net: nn.Module, example: Tensor | None) -> _Seen:
    """Find the order of the layers by a run on the example, else by a trace."""
    channels: dict[nn.Module, set[int]] = {}
    positive: set[nn.Module] = set()
    traced = example is None
    ran = _traced_calls(net, positive) if traced else _calls(net, example, channels)
    order = dict.fromkeys([*ran, *net.modules()])
    return _Seen(list(order), set(ran), channels, positive)


def _calls(net: nn.Module, example: Tensor, channels: dict[nn.Module, set[int]]) -> list[nn.Module]:
    calls = []

    def note(layer: nn.Module, inputs: tuple) -> None:
        calls.append(layer)
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        known = x is not None and x.dim() in (2, 4)
        channels.setdefault(layer, set()).add(x.shape[1] if known else 0)

    watched = [m for m in net.modules() if isinstance(m, _CONVERTED + _RECTIFIERS)]
    handles = [layer.register_forward_pre_hook(note) for layer in watched]
    try:
        _run(net, example, "the model fails on example_input")
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _traced_calls(net: nn.Module, positive: set[nn.Module]) -> list[nn.Module]:
    with evaluating(net):
        try:
            graph = fx.Tracer().trace(net)
        except Exception:  # whatever a model's own forward raises on symbolic values
            return []
    calls = [
        (net.get_submodule(node.target), node) for node in graph.nodes if node.op == "call_module"
    ]
    for layer, node in calls:
        if any(_never_negative(source, net) for source in node.all_input_nodes):
            positive.add(layer)
    return [layer for layer, _ in calls]


def _run(net: nn.Module, example: Tensor, complaint: str, as_training_begins: bool = False) -> None:
    parameter = next(net.parameters(), None)
    x = example if parameter is None else example.to(parameter.device)
    norms = nullcontext()
    if as_training_begins and len(example) > 1:  # one image may have no statistics of its own
        norms = _batch_statistics(net)
    with evaluating(net), norms:
        try:
            net(x.clone())
        except BinarizeError:
            raise
        except Exception as error:  # whatever a model's own forward raises
            text = (str(error).splitlines() or [""])[0]
            raise BinarizeError(f"{complaint}: {type(error).__name__}: {text}") from error


@contextmanager
def _batch_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics and leave their own as they are."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm.eval()
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)


_NON_NEGATIVE = {
    F.relu, torch.relu, torch.relu_, F.relu6, F.softplus, F.sigmoid, torch.sigmoid, F.hardsigmoid,
    torch.abs, F.softmax, torch.softmax, "relu", "relu_", "sigmoid", "sigmoid_", "abs", "softmax",
}  # fmt: skip
# what gives the values that it is given, or means and maxima of them
_PASSING_LAYERS = (
    nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle, nn.ChannelShuffle,
)  # fmt: skip
_PASSING_CALLS = {
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "dropout", "flatten",
    "view", "reshape", "interpolate", "cat", "concat", "chunk", "split", "getitem", "pad", "mean",
    "contiguous", "pixel_shuffle", "squeeze",
}  # fmt: skip


def _never_negative(node: fx.Node, net: nn.Module) -> bool:
    """Whether a traced value is made by a function, not a layer, that gives no negative number."""
    if node.target in _NON_NEGATIVE:
        return True
    if node.op == "call_module":
        passes = isinstance(net.get_submodule(node.target), _PASSING_LAYERS)
    else:
        passes = getattr(node.target, "__name__", node.target) in _PASSING_CALLS
    sources = node.all_input_nodes if node.target in (torch.cat, torch.concat) else node.args[:1]
    sources = [source for source in sources if isinstance(source, fx.Node)]
    return passes and bool(sources) and all(_never_negative(source, net) for source in sources)


def _kept(net: nn.Module, seen: _Seen, skip: str | Iterable[str] | None) -> dict[nn.Module, str]:
    """The layers that stay at 8 bits, and why."""
    layers = [layer for layer in seen.order if isinstance(layer, _CONVERTED)]
    if not layers:
        raise BinarizeError("the model has no Conv2d and no Linear: there is nothing to binarize")
    if skip is None:
        last = [layer for layer in layers if layer in seen.ran] or layers
        kept = {layers[0]: "the first layer", last[-1]: "the last layer"}
    else:
        kept = _matched(net, [skip] if isinstance(skip, str) else list(skip))
    if len(kept) == len(layers):
        way_out = "skip=() makes every layer binary" if skip is None else "let skip match fewer"
        raise BinarizeError(f"no layer would become binary, all would stay at 8 bits: {way_out}")
    return kept


def _matched(net: nn.Module, patterns: list[str]) -> dict[nn.Module, str]:
    paths = [
        (path, layer)
        for path, layer in net.named_modules(remove_duplicate=False)
        if isinstance(layer, _CONVERTED)
    ]
    kept: dict[nn.Module, str] = {}
    for pattern in patterns:
        found = [
            layer
            for path, layer in paths
            if fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern}.")
        ]
        if not found:
            hint = nearest_name(pattern, [path for path, _ in paths])
            raise BinarizeError(
                f"skip: {pattern!r} matches no convolution or linear layer{hint}; paths are those "
                "of model.named_modules()"
            )
        kept |= dict.fromkeys(found, f"skip: {pattern}")
    return kept


# --- the exchange ---

_RECTIFIED_MEAN = 0.4  # of max(x, 0), x standard normal: 1 / sqrt(2 pi)


class _Exchange:
    """What takes each layer's place.

    Attributes:
        new: the layer that takes each one's place.
        changes: what that is, and why.
        pairs: of a sign and a binary layer, by the layer that they stand for.
    """

    def __init__(self, method: str, seen: _Seen, kept: dict[nn.Module, str]):
        self.name = method
        self.like = next(
            iter(kept), next(m for m in seen.order if isinstance(m, _CONVERTED))
        ).weight
        self.method = METHODS[method]
        self.seen = seen
        self.kept = kept
        self.new: dict[nn.Module, nn.Module] = {}
        self.changes: dict[nn.Module, tuple[str, str]] = {}
        self.pairs: dict[nn.Module, nn.Sequential] = {}
        self.started: set[nn.Module] = set()
        self.paths: dict[nn.Module, str] = {}

    def take(self, layer: nn.Module) -> None:
        """Make what takes a layer's place, if anything does."""
        if isinstance(layer, _CONVERTED):
            new = self._quant(layer) if layer in self.kept else self._binary(layer)
        elif isinstance(layer, _RECTIFIERS) and _keeps_forward(layer, _RECTIFIERS):
            new = self._activation(layer)
            self.changes[layer] = type(new).__name__, "a sign needs negative numbers too"
        else:
            return
        self.new[layer] = new.train(layer.training)

    def put_into(self, net: nn.Module) -> nn.Module:
        """Put the new layers in their places."""
        self.paths = {layer: path for path, layer in net.named_modules()}
        if net in self.new:
            return self.new[net]
        for path, layer in list(net.named_modules(remove_duplicate=False)):
            if layer in self.new:
                net.set_submodule(path, self.new[layer])
        return net

    def report(self) -> Binarization:
        """What was done, in the order in which the layers run."""
        changes = [
            LayerChange(self.paths[layer], type(layer).__name__, *self.changes[layer])
            for layer in self.seen.order
            if layer in self.changes
        ]
        return Binarization(self.name, tuple(changes))

    def start_thresholds(self, net: nn.Module, example: Tensor) -> None:
        """Start the threshold of each sign that never sees a negative number at what it sees."""

        def start(layer: nn.Module, x: Tensor) -> None:
            if not torch.isfinite(x).all():
                raise BinarizeError(
                    f"{self.paths[layer]}: NaN or infinity reaches this layer on example_input, "
                    "with the statistics of the batch: give an example as in training"
                )
            # a constant, as behind an example of zeros, says nothing of the layers before
            if layer in self.started or x.min() < 0 or x.min() == x.max():
                return
            self.started.add(layer)
            mean = x.mean()
            if not isinstance(layer, nn.Linear):
                means = x.mean((0, 2, 3))
                mean = torch.where(means > 0, means, mean)
            self._start(layer, mean)

        handles = [
            pair.register_forward_pre_hook(lambda _, inputs, layer=layer: start(layer, inputs[0]))
            for layer, pair in self.pairs.items()
        ]
        try:
            # Statistics of the real-valued network do not fit the binary one.
            complaint = "the model's forward does not fit binary layers"
            _run(net, example, complaint, as_training_begins=True)
        finally:
            for handle in handles:
                handle.remove()

    def _start(self, layer: nn.Module, threshold: Tensor | float) -> None:
        """Give the sign in front of a layer a threshold to start from."""
        channels = 1 if isinstance(layer, nn.Linear) else layer.in_channels
        sign = RSign(channels, self.method.surrogate).to(layer.weight)
        with torch.no_grad():
            sign.bias.copy_(-torch.as_tensor(threshold))
        self.pairs[layer].sign = sign.train(layer.training)
        self.changes[layer] = "binary", "its threshold starts above 0: no input is negative"

    # --- one layer ---

    def _activation(self, layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.LeakyReLU):
            new = nn.PReLU(init=layer.negative_slope)
        elif not self.method.rprelu:
            new = nn.Identity()
        else:
            channels = self.seen.channels.get(layer, {0})
            known = len(channels) == 1 and channels != {0}
            new = RPReLU(*channels) if known else nn.PReLU()
        return new.to(self.like)

    def _quant(self, layer: nn.Module) -> nn.Module:
        self.changes[layer] = "8-bit", self.kept[layer]
        source = _plain(layer)
        bias = source.bias is not None
        if isinstance(source, nn.Linear):
            new = QuantLinear(source.in_features, source.out_features, bias=bias)
        else:
            new = QuantConv2d(**conv_arguments(source), bias=bias)
        new = _with_parameters(new, source)
        return new if source is layer else nn.Sequential(OrderedDict(conv=new, **_shuffle(layer)))

    def _binary(self, layer: nn.Module) -> nn.Module:
        source = _plain(layer)
        weights = self.method.weight_quantizer
        bias = source.bias is not None
        linear = isinstance(source, nn.Linear)
        if linear:
            sizes = source.in_features, source.out_features
            new = BinaryLinear(*sizes, weight_quantizer=weights, bias=bias)
        else:
            new = BinaryConv2d(**conv_arguments(source), weight_quantizer=weights, bias=bias)
        new = _with_parameters(new, source)
        new.weight_quantizer.init_from(new.weight)
        sign = Sign(self.method.surrogate)
        if self.method.learned_threshold:
            channels = 1 if linear else source.in_channels
            sign = RSign(channels, self.method.surrogate).to(source.weight)
        parts = {"sign": sign, "linear" if linear else "conv": new, **_shuffle(layer)}
        self.pairs[layer] = nn.Sequential(OrderedDict(parts))
        self.changes[layer] = "binary", "not kept at 8 bits"
        if layer in self.seen.positive:
            self._start(layer, _RECTIFIED_MEAN)
        return self.pairs[layer]


def _keeps_forward(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer computes what the class of PyTorch's does that it derives from."""
    kind = next(k for k in type(layer).__mro__ if k in kinds)
    names = [name for name in ("forward", "_conv_forward") if hasattr(kind, name)]
    return all(getattr(type(layer), name) is getattr(kind, name) for name in names)


def _plain(layer: nn.Module) -> nn.Module:
    """A transposed convolution as the 1x1 one in front of its shuffle; others as they are."""
    if not isinstance(layer, nn.ConvTranspose2d):
        return layer
    factor, groups = layer.kernel_size[0], layer.groups
    outputs = layer.out_channels * factor**2
    bias = layer.bias is not None
    conv = nn.Conv2d(layer.in_channels, outputs, 1, groups=groups, bias=bias).to(layer.weight)
    # [g I/g, O/g, k, k] -> [g O/g k k, I/g]: a channel for each pixel of the kernel
    weight = layer.weight.detach().unflatten(0, (groups, -1)).permute(0, 2, 3, 4, 1)
    conv.weight = nn.Parameter(
        weight.reshape(outputs, -1, 1, 1).contiguous(), layer.weight.requires_grad
    )
    if bias:
        spread = layer.bias.detach().repeat_interleave(factor**2)
        conv.bias = nn.Parameter(spread, layer.bias.requires_grad)
    return conv


def _shuffle(layer: nn.Module) -> dict[str, nn.Module]:
    """What stands behind the convolution of a transposed one."""
    if not isinstance(layer, nn.ConvTranspose2d):
        return {}
    return {"shuffle": nn.PixelShuffle(layer.kernel_size[0])}


def _with_parameters(new: nn.Module, old: nn.Module) -> nn.Module:
    """The new layer with the very parameters of the old one, so that shared ones stay shared."""
    new.weight, new.bias = old.weight, old.bias
    return new.to(old.weight.device)
