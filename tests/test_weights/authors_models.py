"""Classifiers with the names and the arithmetic of the authors' public code, narrow."""

import torch
from torch import Tensor, nn


class AuthorsSpike(nn.Module):
    """Fires where the potential over the threshold reaches the running average."""

    def __init__(self, entries: int = 1) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(1.0))
        self.register_buffer('running_hoyer_thr', torch.zeros(entries))
        self.register_buffer('num_batches_tracked', torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return (x / self.threshold >= self.running_hoyer_thr.view(shape)).to(x.dtype)


class AuthorsVGG(nn.Module):
    """VGG16 of 13 convolutions; ``cifar`` has no last pooling, ``dropout`` a layer behind spikes."""

    def __init__(self, base: int = 4, cifar: bool = False, dropout: bool = False) -> None:
        super().__init__()
        layers, channels = [], 3
        for stage, convs in enumerate((2, 2, 3, 3, 3)):
            for conv in range(convs):
                width = base * min(2**stage, 8)
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
                if conv == convs - 1 and not (cifar and stage == 4):
                    layers.append(nn.MaxPool2d(2))
                layers += [nn.BatchNorm2d(width), AuthorsSpike(width)]
                if dropout:
                    layers.append(nn.Dropout(0.1))
                channels = width
        self.features = nn.Sequential(*layers)
        inputs = channels * (4 if cifar else 1)
        self.classifier = nn.Sequential(
            nn.Linear(inputs, 24, bias=False),
            AuthorsSpike(),
            nn.Linear(24, 24, bias=False),
            AuthorsSpike(),
            nn.Linear(24, 7, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if stride == 1 and channels == out:
        return nn.Identity()
    return nn.Sequential(
        nn.MaxPool2d(stride, stride),
        nn.BatchNorm2d(channels),
        AuthorsSpike(),
        nn.Conv2d(channels, out, 1, bias=False),
    )


class AuthorsBasic(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.act = AuthorsSpike()
        self.conv = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv(self.act(x))) + self.downsample(x)


class AuthorsBottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.act1 = nn.BatchNorm2d(channels), AuthorsSpike()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(width), AuthorsSpike()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3, self.act3 = nn.BatchNorm2d(width), AuthorsSpike()
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.downsample = shortcut(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.act1(self.bn1(x)))
        y = self.conv2(self.act2(self.bn2(y)))
        return self.conv3(self.act3(self.bn3(y))) + self.downsample(x)


class AuthorsResNet(nn.Module):
    def __init__(self, bottleneck: bool, blocks: tuple, base: int = 4, cifar: bool = False) -> None:
        super().__init__()
        if cifar:
            self.conv1 = nn.Sequential(
                nn.Conv2d(3, base, 3, 1, 1, bias=False),
                nn.BatchNorm2d(base),
                AuthorsSpike(),
                nn.Conv2d(base, base, 3, 1, 1, bias=False),
                nn.BatchNorm2d(base),
                AuthorsSpike(),
                nn.Conv2d(base, base, 3, 1, 1, bias=False),
            )
        else:
            self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.bn1 = nn.BatchNorm2d(base)
        channels = base
        for stage, number in enumerate(blocks):
            layers = []
            for block in range(number):
                stride = 2 if stage and not block else 1
                width = base * 2**stage
                kind = AuthorsBottleneck if bottleneck else AuthorsBasic
                layers.append(kind(channels, width, stride))
                channels = width * (4 if bottleneck else 1)
            setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))
        self.fc_act = AuthorsSpike()
        self.fc = nn.Linear(channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.pool(self.conv1(x)))
        for stage in range(1, 5):
            x = getattr(self, f'layer{stage}')(x)
        return self.fc(self.fc_act(x.mean((2, 3))))


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor a value of its own; thresholds are powers of two, so they divide exactly."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, fan_in**-0.5, generator=draw)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=draw)
            module.bias.data.uniform_(-0.5, 1, generator=draw)
            module.running_mean.uniform_(-0.2, 0.2, generator=draw)
            module.running_var.uniform_(0.1, 0.6, generator=draw)
            module.num_batches_tracked += int(torch.randint(1, 99, (), generator=draw))
        elif isinstance(module, AuthorsSpike):
            module.threshold.data.fill_(2.0 ** int(torch.randint(-2, 2, (), generator=draw)))
            module.running_hoyer_thr.uniform_(0.2, 0.9, generator=draw)
    return model.eval()


MODELS = {
    'vgg16': lambda: AuthorsVGG(),
    'vgg16 with dropout': lambda: AuthorsVGG(dropout=True),
    'vgg16 for CIFAR': lambda: AuthorsVGG(cifar=True),
    'resnet18': lambda: AuthorsResNet(False, (4, 4, 4, 4)),
    'resnet18 for CIFAR': lambda: AuthorsResNet(False, (4, 4, 4, 4), cifar=True),
    'resnet34': lambda: AuthorsResNet(False, (6, 8, 12, 6)),
    'resnet50': lambda: AuthorsResNet(True, (3, 4, 6, 3)),
}
