"""Training is reproducible and measured exactly, and divergence is a result."""

import math

import mltrainer
import pytest
import torch
from mltrainer.metrics import Accuracy
from mltrainer.trainer import Reporter
from torch import nn

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Batches, Data, Split
from cnnlab.device import has_bf16, resolve_device
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.params import ConfigError
from cnnlab.training import DIVERGED_LOSS, READ_EVERY, LabTrainer, Result, fit, streams
from cnnlab.watcher import Watcher


def train(config: Config, data: Data, **options) -> Result:
    return fit(config, data, progress=False, device="cpu", **options)


def same_weights(a: Result, b: Result) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.5, "conv_dropout": 0.1, "norm": "batch"}])
def test_same_seed_gives_the_same_weights(small: Config, small_data: Data, changes: dict) -> None:
    config = replace(small, **changes)
    one = train(config, small_data)
    torch.manual_seed(123)  # other code in the process may have used random numbers
    torch.rand(7)
    other = train(config, small_data)
    assert same_weights(one, other)
    assert [e["loss/train"] for e in one.epochs] == [e["loss/train"] for e in other.epochs]


def test_another_seed_gives_other_weights(small: Config, small_data: Data) -> None:
    assert not same_weights(train(small, small_data), train(replace(small, seed=1), small_data))


def test_a_seed_gives_every_arm_the_same_start_and_images(small: Config, small_data: Data) -> None:
    a = train(replace(small, epochs=1, lr=1e-12, schedule="constant"), small_data)
    b = train(replace(small, epochs=1, lr=1e-12, schedule="constant", dropout=0.5), small_data)
    assert a.facts["train_sha256"] == b.facts["train_sha256"]
    assert torch.allclose(a.model.block1.conv1.weight, b.model.block1.conv1.weight, atol=1e-9)


def test_the_four_streams_of_a_seed_differ() -> None:
    assert len({*streams(0).values(), *streams(1).values()}) == 8


def test_training_leaves_the_callers_random_numbers_alone(small: Config, small_data: Data) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(small, small_data)
    assert torch.equal(torch.rand(3), expected)


def test_validation_covers_the_whole_set_with_equal_weights(small: Config, small_data: Data) -> None:
    big = Data(small_data.train, _repeat(small_data.valid, 703))  # not a multiple of the batch
    result = train(small, big)
    logits = result.model.eval()(next(iter(Batches(big.valid, 703, big.normaliser())))[0])
    loss = nn.functional.cross_entropy(logits, big.valid.y).item()
    correct = (logits.argmax(1) == big.valid.y).sum().item()
    assert result.final["loss/valid"] == pytest.approx(loss, rel=1e-5)
    assert result.final["accuracy/valid"] == correct / 703
    assert result.facts["num_valid"] == "703"


def _repeat(split: Split, n: int) -> Split:
    return split.take(torch.arange(n) % len(split))


def test_the_training_loss_is_weighted_per_image(small: Config, small_data: Data) -> None:
    config = replace(
        small, train_images=70, batch_size=64, epochs=1, lr=1e-12, schedule="constant", precision="float32"
    )
    result = train(config, small_data)  # batches of 64 and of 6, and the final weights
    assert result.epochs[0]["loss/train"] == pytest.approx(result.final["loss/train_eval"], rel=1e-5)


def test_dropout_makes_the_train_mode_loss_worse_than_the_eval_mode_loss(small: Config, small_data: Data) -> None:
    last = train(replace(small, dropout=0.8, epochs=6), small_data).epochs[-1]
    assert last["loss/train"] > last["loss/train_eval"]
    assert last["gap/loss"] == last["loss/valid"] - last["loss/train_eval"]
    assert last["gap/accuracy"] == last["accuracy/train_eval"] - last["accuracy/valid"]


def test_the_gap_in_train_mode_has_the_wrong_sign_under_dropout(small: Config, small_data: Data) -> None:
    result = train(replace(small, dropout=0.8, epochs=6), small_data)
    assert result.final["gap/train_mode"] < 0 < result.final["loss/train"]
    assert result.final["gap/train_mode"] == result.final["loss/valid"] - result.final["loss/train"]
    assert result.final["loss/train"] == result.epochs[-1]["loss/train"]


def test_the_result_is_the_value_at_the_last_weights(small: Config, small_data: Data) -> None:
    result = train(small, small_data)
    assert result.final["loss/valid"] == result.epochs[-1]["loss/valid"]
    assert result.facts["kept"] == "last (step 20 of 20)"
    assert result.facts["steps"] == "20"
    assert result.facts["images_seen"] == "640"
    assert result.outcome == "finished"


def test_best_weights_are_restored_without_early_stopping(small: Config, small_data: Data) -> None:
    config = replace(small, keep="best", epochs=6, lr=0.3, optimizer="sgd", schedule="constant", seed=1)
    result = train(config, small_data)
    losses = [epoch["loss/valid"] for epoch in result.epochs]
    best = losses.index(min(losses))
    assert best < len(losses) - 1, "choose a seed whose best epoch isn't the last"
    assert result.final["loss/valid"] == losses[best]
    assert result.final["loss/train"] == result.epochs[best]["loss/train"] != result.epochs[-1]["loss/train"]
    assert result.final["gap/train_mode"] == losses[best] - result.final["loss/train"]
    assert result.facts["kept"] == f"best (step {10 * (best + 1)} of 60)"


@pytest.mark.parametrize("epochs", [1, 2])
def test_averaged_weights_are_the_mean_over_the_last_quarter_of_the_steps(
    epochs: int, small: Config, small_data: Data
) -> None:
    config = replace(small, keep="average", epochs=epochs, norm="batch")
    trainer = LabTrainer(config, small_data, "cpu", (), probes=False, build=None)
    trainer.reporters, weights = [], []
    first = trainer.model.block1.conv1.weight
    trainer.optimizer.register_step_post_hook(lambda *_: weights.append(first.detach().clone()))
    trainer.loop()
    assert len(weights) == 10 * epochs
    assert torch.allclose(trainer.model.block1.conv1.weight, torch.stack(weights[int(7.5 * epochs) :]).mean(0))
    result = train(config, small_data)
    assert result.facts["kept"] == f"average (step {10 * epochs} of {10 * epochs})"
    assert torch.equal(result.model.block1.conv1.weight, first), "watching the steps changed the training"
    assert result.final["loss/valid"] == result.valid.loss != result.epochs[-1]["loss/valid"]


def test_averaged_weights_get_batch_statistics_of_their_own(small: Config, small_data: Data) -> None:
    result = train(replace(small, keep="average", norm="batch"), small_data)
    order = torch.randperm(
        len(small_data.train), generator=torch.Generator().manual_seed(streams(small.seed)["subset"])
    )
    x = small_data.normaliser()(small_data.train.x[order[: small.train_images]])
    block = result.model.block1
    with torch.no_grad():
        maps = block.conv1(x)
    assert torch.allclose(block.norm1.running_mean, maps.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(block.norm1.running_var, maps.var(dim=(0, 2, 3)), rtol=0.02)


def test_a_training_that_diverges_keeps_no_average(small: Config, small_data: Data) -> None:
    result = train(replace(small, keep="average", optimizer="sgd", lr=1e4, epochs=3), small_data)
    assert result.outcome.startswith("diverged")
    assert result.facts["kept"].startswith("last (step")


def test_early_stopping_ends_the_run_and_is_recorded(small: Config, small_data: Data) -> None:
    result = train(replace(small, epochs=30, patience=1, lr=0.05, optimizer="sgd", schedule="constant"), small_data)
    assert len(result.epochs) < 30
    assert result.outcome == f"stopped early after epoch {len(result.epochs)}"


@pytest.mark.parametrize("keep", ["last", "best"])
def test_divergence_is_a_recorded_result(small: Config, small_data: Data, keep: str) -> None:
    config = replace(small, optimizer="sgd", lr=1e6, schedule="constant", keep=keep)
    result = train(config, small_data)
    step = int(result.outcome.removeprefix("diverged at step "))
    assert 1 < step <= 20
    assert step <= int(result.facts["steps"]) < step + READ_EVERY
    assert len(result.epochs) == (step - 1) // 10
    assert not result.final["loss/valid"] < DIVERGED_LOSS
    assert not {"loss/train", "gap/train_mode"} & set(result.final) or result.epochs


def test_after_divergence_the_train_mode_values_are_those_of_the_last_finished_epoch(
    small: Config, small_data: Data
) -> None:
    config = replace(small, optimizer="sgd", lr=5.0, schedule="constant", epochs=8)
    result = train(config, small_data)
    assert result.outcome.startswith("diverged") and result.epochs, "choose a rate that diverges after the first epoch"
    last = result.epochs[-1]
    assert result.final["loss/train"] == last["loss/train"]
    assert result.final["gap/train_mode"] == last["loss/valid"] - last["loss/train"]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "cosine"])
def test_every_optimizer_learns_with_every_schedule(
    small: Config, small_data: Data, optimizer: str, schedule: str
) -> None:
    lr = 0.2 if optimizer == "sgd" else 0.02
    config = replace(small, optimizer=optimizer, schedule=schedule, lr=lr, epochs=5, norm="batch")
    result = train(config, small_data)
    assert result.final["loss/valid"] < 0.75 * math.log(10)
    assert result.facts["optimizer"].lower().startswith(optimizer + "(")
    last_lr = result.epochs[-1]["lr"]
    assert last_lr == lr if schedule == "constant" else last_lr < 0.02 * lr


@pytest.mark.parametrize("head_norm", ["batch", "layer"])
def test_a_normalised_head_learns(small: Config, small_data: Data, head_norm: str) -> None:
    result = train(replace(small, head_norm=head_norm, dropout=0.3, train_images=322, epochs=5), small_data)
    assert result.final["loss/valid"] < 0.75 * math.log(10)  # also with a last batch of two


def test_one_single_step_is_possible(small: Config, small_data: Data) -> None:
    result = train(replace(small, train_images=8, batch_size=8, epochs=1), small_data)
    assert result.facts["steps"] == "1"


def test_bf16_trains_with_float32_weights(small: Config, small_data: Data) -> None:
    result = train(replace(small, precision="bf16"), small_data)
    assert result.facts["precision"] == "bfloat16"
    assert result.model.block1.conv1.weight.dtype == torch.float32
    assert result.final["loss/valid"] < math.log(10)
    # the scores are those of the network as it is saved
    ((images, _),) = Batches(small_data.valid, len(small_data.valid), small_data.normaliser())
    with torch.no_grad():
        logits = result.model.eval()(images)
    assert result.valid.logits.dtype == torch.float32
    assert torch.allclose(result.valid.logits, logits, atol=1e-5)


def test_auto_takes_bf16_only_where_the_processor_has_it(small: Config, small_data: Data) -> None:
    assert small.precision == "auto"
    expected = "bfloat16" if has_bf16("cpu") else "float32"
    assert train(small, small_data).facts["precision"] == expected


def test_mltrainers_metrics_are_computed_over_the_whole_set(small: Config, small_data: Data) -> None:
    result = train(small, small_data, metrics=[Accuracy()])
    assert result.epochs[-1]["Accuracy/valid"] == pytest.approx(result.final["accuracy/valid"], abs=1e-6)


def test_mltrainers_reporters_are_called_after_every_epoch(small: Config, small_data: Data) -> None:
    class Collect(Reporter):
        def __init__(self) -> None:
            self.seen: list[tuple[int, float]] = []

        def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
            self.seen.append((epoch, test_loss))

    collect = Collect()
    result = train(small, small_data, reporters=[collect])
    assert collect.seen == [(i, e["loss/valid"]) for i, e in enumerate(result.epochs, start=1)]


class Everything(Watcher):
    """Keeps all events that it receives."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.heard: list[str] = []
        self.images = 0

    def start(self, config: Config, facts: dict[str, str]) -> None:
        self.facts = facts
        self.heard.append("start")

    def progress(self, images: int, said: str) -> None:
        self.images += images

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        self.heard.append(f"epoch {epoch}")

    def end(self, outcome: str) -> None:
        self.heard.append(outcome)


def test_a_watcher_hears_of_the_whole_training(small: Config, small_data: Data) -> None:
    watcher = Everything()
    train(small, small_data, reporters=[watcher])
    assert watcher.heard == ["start", "epoch 1", "epoch 2", "finished"]
    assert watcher.images == 2 * small.train_images


def test_a_watcher_hears_of_the_end_of_a_training_that_was_interrupted(small: Config, small_data: Data) -> None:
    class Impatient(Everything):
        def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
            raise KeyboardInterrupt

    watcher = Impatient()
    with pytest.raises(KeyboardInterrupt):
        train(small, small_data, reporters=[watcher])
    assert watcher.heard == ["start", "interrupted"]


def test_the_trainer_is_mltrainers(small: Config, small_data: Data) -> None:
    trainer = LabTrainer(small, small_data, "cpu", metrics=[Accuracy()], probes=False, build=None)
    assert isinstance(trainer, mltrainer.Trainer) and isinstance(trainer.settings, mltrainer.TrainerSettings)
    trainer.loop()
    metrics, valid_loss = trainer.evalbatches()
    assert metrics["Accuracy/valid"] == pytest.approx(metrics["accuracy/valid"], abs=1e-6)
    assert valid_loss == trainer.epochs[-1]["loss/valid"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_and_number_of_classes_can_be_trained_on(small: Config, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(640) % 4
    x = torch.randint(0, 60, (640, channels, 9, 12), generator=generator)
    for label in range(4):
        x[y == label, :, :, 3 * label : 3 * label + 3] += 150
    data = Data((x[:400], y[:400]), (x[400:], y[400:]))
    result = train(replace(small, blocks=((1, 8), (1, 8), (1, 8)), epochs=4), data)
    assert result.final["accuracy/valid"] > 0.9
    assert result.valid.logits.shape == (240, 4)
    assert result.facts["image_shape"] == f"{channels} x 9 x 12" and result.facts["num_classes"] == "4"
    with pytest.raises(ConfigError, match=r"blocks=.* is not possible: .* 9 x 12 pixels allow for 3 of them"):
        train(replace(small, blocks=((1, 8),) * 4), data)


def test_the_facts_are_those_of_the_objects(small: Config, small_data: Data) -> None:
    watcher = Everything()
    train(replace(small, norm="batch", dropout=0.25, lr=0.004, weight_decay=0.05), small_data, reporters=[watcher])
    facts = watcher.facts
    assert "BatchNorm2d(8" in facts["module_tree"]
    assert "Dropout(p=0.25" in facts["module_tree"]
    assert facts["optimizer"].startswith("AdamW(lr=0.004,")
    assert "weight_decay=0.05" in facts["optimizer"]
    assert facts["schedule"].startswith("OneCycleLR(max_lr=0.004, total_steps=20")
    assert facts["num_train"] == "320"
    assert facts["valid_sha256"] == small_data.valid.sha256()


def test_your_own_network_can_be_trained(small: Config, small_data: Data) -> None:
    result = train(small, small_data, build=lambda config: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert [type(layer).__name__ for layer in result.model] == ["Flatten", "Linear"]
    assert "in_features=784" in result.facts["module_tree"]


def test_no_files_are_left_behind(small: Config, small_data: Data, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(small, small_data)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_device_is_named_with_those_that_are_there() -> None:
    with pytest.raises(LabError, match="choose auto"):
        resolve_device("tpu")


def test_the_initial_loss_is_that_of_guessing(real_data: Data) -> None:
    result = train(replace(BASE, train_images=64, epochs=1, lr=1e-12), real_data)
    assert result.final["loss/valid"] == pytest.approx(math.log(10), abs=0.1)


def test_one_batch_of_real_images_can_be_memorised(real_data: Data) -> None:
    config = replace(BASE, train_images=64, epochs=120, schedule="one_cycle", lr=0.005)
    few = Data(real_data.train, real_data.valid.take(torch.arange(100)))
    assert train(config, few).final["accuracy/train_eval"] == 1.0


def test_more_images_than_there_are_is_refused(small: Config, small_data: Data) -> None:
    with pytest.raises(LabError, match="the data hold 640"):
        train(replace(small, train_images=641), small_data)
