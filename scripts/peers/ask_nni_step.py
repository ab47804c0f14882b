"""Times NNI's one-shot strategies on its ProxylessNAS space: the answer to `scripts/benchmark_nni.py`.

    {"threads", "input_hw", "classes", "batch", "strides": of stem, first block and six stages,
     "networks": [{label: choice}, ...], "strategies": [name, ...], "spend_s"}
    -> {"versions", "networks": [{"params", "seconds": [train, evaluate]}, ...], "steps": {strategy: seconds}}

The space is the one of its hub, put together from the hub's parts, because the hub's strides are those of large images.
A step is what one phase of the strategy does: forward, backward, and the updates of weights and of architecture.
"""

import json
import sys

import torch
from nni.nas.hub.pytorch.proxylessnas import ConvBNReLU, DepthwiseSeparableConv, inverted_residual_choice_builder
from nni.nas.nn.pytorch import ModelSpace, MutableBatchNorm2d, MutableLinear, Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import DARTS, Proxyless, RandomOneShot
from timing import seconds
from torch import nn
from torch.nn.functional import cross_entropy

WIDTHS = (32, 16, 32, 40, 80, 96, 192, 320, 1280)
STRATEGIES = {"darts": DARTS, "proxyless": Proxyless}


class Space(ModelSpace):
    """The hub's ProxylessNAS with other strides."""

    def __init__(self, strides, classes):
        super().__init__()
        stem, _, *rest = strides
        self.stem = ConvBNReLU(3, WIDTHS[0], stride=stem, norm_layer=MutableBatchNorm2d)
        blocks = [DepthwiseSeparableConv(WIDTHS[0], WIDTHS[1], kernel_size=3, stride=1)]
        for stage, stride in enumerate(rest, start=2):
            builder = inverted_residual_choice_builder(
                [3, 6], [3, 5, 7], stride == 2, WIDTHS[stage - 1], WIDTHS[stage], f"s{stage}"
            )
            blocks.append(Repeat(builder, (1, 4), label=f"s{stage}_depth") if stage < 7 else builder(0))
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvBNReLU(WIDTHS[7], WIDTHS[8], kernel_size=1, norm_layer=MutableBatchNorm2d)
        self.classifier = MutableLinear(WIDTHS[8], classes)

    def forward(self, x):
        """Logits of images."""
        return self.classifier(self.last(self.blocks(self.stem(x))).mean((2, 3)))


def weights_rule(parameters):
    """The update of weights."""
    return torch.optim.SGD(parameters, 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)


def supernet_of(strategy, question):
    """The space under a strategy, and its modules that choose."""
    net = strategy.mutate_model(Space(question["strides"], question["classes"]))
    return net, [module for module in net.modules() if isinstance(module, BaseSuperNetModule)]


def choose(modules, given):
    """Let every module draw its choice, except what is given."""
    memo = dict(given)
    for module in modules:
        memo.update(module.resample(memo))


def single_paths(question, x, y):
    """Parameters, and seconds of a training step and an evaluation of every network inside the supernet."""
    net, modules = supernet_of(RandomOneShot(), question)
    optimizer = weights_rule(net.parameters())
    found = []
    for network in question["networks"]:
        choose(modules, network)

        def step():
            net.train()
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()

        def evaluate():
            net.eval()
            with torch.no_grad():
                net(x)

        spent = [seconds(call, question["spend_s"]) for call in (step, evaluate)]
        step()
        used = [p for p in net.parameters() if p.grad is not None]
        found.append({"params": sum(p.numel() for p in used), "seconds": spent})
    return found


def all_paths(name, question, x, y):
    """Seconds of a step of a differentiable strategy."""
    net, modules = supernet_of(STRATEGIES[name](), question)
    alphas = {p for name, p in net.named_parameters() if "alpha" in name}
    rules = weights_rule([p for p in net.parameters() if p not in alphas]), torch.optim.Adam(alphas, 3e-4, (0.5, 0.999))
    net.train()

    def step():
        choose(modules, {})
        for rule in rules:
            rule.zero_grad()
        cross_entropy(net(x), y).backward()
        for rule in rules:
            rule.step()

    return seconds(step, question["spend_s"], least=3)


def main():
    """Read the question, print the answer."""
    question = json.load(sys.stdin)
    torch.set_num_threads(question["threads"])
    torch.manual_seed(0)
    size = question["input_hw"]
    x, y = torch.randn(question["batch"], 3, size, size), torch.randint(question["classes"], (question["batch"],))
    networks = single_paths(question, x, y) if question["networks"] else []
    steps = {name: all_paths(name, question, x, y) for name in question["strategies"]}
    print(json.dumps({"versions": [f"nni 3.0, torch {torch.__version__}"], "networks": networks, "steps": steps}))


main()
