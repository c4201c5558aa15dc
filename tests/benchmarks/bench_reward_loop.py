"""A reward's classifier training against a plain loop with a DataLoader, same batches and steps."""

import torch
from timing import Figure, paired
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from imaging_core.classifiers import build_classifier
from imaging_core.datasets import load
from imaging_core.fitting import FitConfig, fit, standardise
from imaging_core.seeding import torch_generator

EPOCHS, BATCH = 5, 64


def figures() -> list[Figure]:
    """One reward: 160 images, five epochs, scored on 256 images after each."""
    torch.set_num_threads(1)
    data = load("ihc-colon")
    mean, std = data.train.mean_std
    images = standardise(data.train.images[:160], mean, std, "cpu")
    labels = torch.as_tensor(data.train.labels[:160])
    seen = standardise(data.validation.images[:256], mean, std, "cpu")
    truth = torch.as_tensor(data.validation.labels[:256])
    config = FitConfig(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=2e-3, optimiser="adamw",
        schedule="constant", weight_decay=0.0, patience=0, min_steps=0, augment="none",
    )  # fmt: skip

    def model() -> torch.nn.Module:
        return build_classifier(
            "tiny-resnet", channels=1, classes=2, size=(32, 32), generator=torch_generator(0, "m")
        )

    def ours() -> None:
        fit(
            model(), images, labels, config=config, generator=torch_generator(0, "order"),
            validation=(seen, truth), keep_best=False,
        )  # fmt: skip

    def plain() -> None:
        network = model()
        optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.0)
        loader = DataLoader(
            TensorDataset(images, labels), batch_size=BATCH, shuffle=True,
            generator=torch_generator(0, "order"),
        )  # fmt: skip
        scoring = DataLoader(TensorDataset(seen, truth), batch_size=BATCH)
        for _ in range(EPOCHS):
            network.train()
            for x, y in loader:
                optimiser.zero_grad()
                loss = functional.cross_entropy(network(x), y)
                loss.backward()
                optimiser.step()
                loss.item()
            network.eval()
            with torch.no_grad():
                sum((network(x).argmax(1) == y).sum().item() for x, y in scoring)

    what = "one reward training (tiny-resnet, 160 images, 5 epochs) against a DataLoader loop"
    return [paired(what, ours, plain, limit="≥ 2")]
