"""The peer Lightning: its `Trainer` with everything except training switched off."""

import time

import lightning
import torch
from torch import Tensor, nn

from benchmarks.peers import WARM_UP, Batch, first, loader, stock_model, wait_for
from cnnlab.data import Split


class Module(lightning.LightningModule):
    """The stock network with Adam, as a Lightning module."""

    def __init__(self) -> None:
        super().__init__()
        self.network = stock_model()
        self.loss_fn = nn.CrossEntropyLoss()

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Return the loss of one batch."""
        x, y = batch
        loss: Tensor = self.loss_fn(self.network(x), y)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters())


class Clock(lightning.Callback):
    """Measures the seconds of an epoch, without the setup before it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds = 0.0
        self._started = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        wait_for(self.device)
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the clock."""
        wait_for(self.device)
        self.seconds = time.perf_counter() - self._started


def epoch_s(train: Split, num_workers: int, device: str) -> float:
    """Return the seconds that Lightning takes for one epoch, after a short warm-up epoch."""
    module, clock = Module(), Clock(device)
    for split in (first(train, WARM_UP), train):
        trainer = lightning.Trainer(
            accelerator=device,
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(module, loader(split, num_workers, device))
    return clock.seconds
