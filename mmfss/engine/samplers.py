"""Which episodes an epoch of training takes, and a test of a few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmengine.dist import get_dist_info
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import Dataset, Sampler

from mmfss.words import listed


@DATA_SAMPLERS.register_module()
class EpisodeSampler(Sampler):
    """Walks a stream of episodes once: epoch e of L episodes takes e L .. (e + 1) L - 1.

    No episode comes twice in a run, and a run resumed at epoch e goes on where it stopped.
    Process r of W takes every W-th episode; where W does not divide L, the rest of the epoch is
    left out, so that all processes take equally many.

    Args:
        dataset: an :class:`~mmfss.datasets.EpisodicDataset` with ``num_episodes`` for the whole
            run.
        passes: L as a multiple of the number of images that can be a query. One pass takes every
            image once.
        episodes_per_epoch: L itself, in place of ``passes``.
        seed: mmengine gives one to every sampler; not used, episodes have the dataset's.

    Raises:
        ValueError: neither or both of ``passes`` and ``episodes_per_epoch``, one that gives less
            than an episode per process, or, when iterated, an epoch beyond the dataset's end.
    """

    def __init__(
        self,
        dataset: Dataset,
        passes: float | None = None,
        episodes_per_epoch: int | None = None,
        seed: int | None = None,
    ) -> None:
        if (passes is None) == (episodes_per_epoch is None):
            raise ValueError(
                'EpisodeSampler takes either passes or episodes_per_epoch, got '
                f'passes={passes!r} and episodes_per_epoch={episodes_per_epoch!r}; set the other '
                'to None'
            )
        if episodes_per_epoch is None:
            episodes_per_epoch = int(passes * dataset.num_images)
        self.rank, self.world_size = get_dist_info()
        if episodes_per_epoch < self.world_size:
            raise ValueError(
                f'an epoch of {episodes_per_epoch} episodes gives none to some of the '
                f'{self.world_size} processes; raise passes ({passes!r}) or set '
                'episodes_per_epoch'
            )
        self.dataset = dataset
        self.episodes_per_epoch = int(episodes_per_epoch)
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        """Indices of this process's episodes in the current epoch."""
        start = self.epoch * self.episodes_per_epoch
        stop = start + len(self) * self.world_size
        if stop > len(self.dataset):
            raise ValueError(
                f'epoch {self.epoch} ends at episode {stop}, but the dataset has '
                f'{len(self.dataset)}; raise train_dataloader.dataset.num_episodes'
            )
        return iter(range(start + self.rank, stop, self.world_size))

    def __len__(self) -> int:
        """Episodes per epoch of one process."""
        return self.episodes_per_epoch // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Called by mmengine at the start of epoch ``epoch`` >= 0."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class PickedEpisodesSampler(Sampler):
    """Takes the episodes of these numbers, in this order.

    Args:
        dataset: an :class:`~mmfss.datasets.EpisodicDataset`.
        numbers: 0 .. len(dataset) - 1.
        seed: mmengine gives one to every sampler; not used.

    Raises:
        ValueError: a number that the dataset has no episode of.
    """

    def __init__(self, dataset: Dataset, numbers: Sequence[int], seed: int | None = None) -> None:
        beyond = [number for number in numbers if not 0 <= number < len(dataset)]
        if beyond:
            raise ValueError(
                f'numbers of episodes must be in 0..{len(dataset) - 1}, got {listed(beyond)}'
            )
        self.numbers = list(numbers)

    def __iter__(self) -> Iterator[int]:
        """The numbers."""
        return iter(self.numbers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.numbers)
