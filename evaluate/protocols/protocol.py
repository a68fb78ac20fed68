"""What a protocol is: a question about an exported network, its settings, and what the answer looks like.

A protocol says which networks it can judge (`needs`), whether it reads frozen features (then scenes are encoded once
for all such protocols, and raw inputs can stand beside the network), and which of its metrics are columns of the table.
Whoever runs it knows none in particular.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.pictured import Pictured
from brickyard.evaluate.splits import DataConfig, SceneConfig, train_rows
from brickyard.evaluate.table import Column
from brickyard.shards.errors import RecipeError
from brickyard.train.students.base import Exported, Student

if TYPE_CHECKING:
    from brickyard.evaluate.subject import Subject

C = TypeVar("C", bound=SceneConfig)
D = TypeVar("D", bound=DataConfig)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The answer for one network.

    Attributes:
        metrics: name -> number, or name -> (such as a class -> number); what is unknown is None or not finite.
        scenes: that it trained on, and that it was scored on.
        confusion: int64 (classes, classes), truth by row, where classes were predicted.
        classes: their names.
        pictures: of some scenes. files: name -> content of what else should lie beside them.
    """

    metrics: Mapping[str, Any]
    scenes: tuple[int, int]
    confusion: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    pictures: tuple[Pictured, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others have published for the same, or why there is nothing to compare with.

    Attributes:
        source: whose it is, or the reason.
        values: metric -> number.
    """

    source: str
    values: Mapping[str, float] = field(default_factory=dict)


class Protocol(Generic[C]):
    """See the module's text. One object of it is what an entry point of "brickyard.protocols" names.

    Attributes:
        config: class of its settings, frozen dataclass with defaults.
        presets: further names -> settings, beside the protocol's own name.
        needs: what a network must be to be judged by it.
        reads_features: whether all it sees of the network are features of scenes, by `Subject.encoder`.
        columns: of the table; `run` measures at least these metrics.
    """

    config: type[C]
    presets: Mapping[str, C] = {}
    needs: type[Exported] = Exported
    reads_features: bool = False
    columns: tuple[Column, ...] = ()

    def run(self, subject: Subject, config: C) -> Measured:
        """Judge the network of a subject, which stays as it is.

        Raises:
            RecipeError: the corpus or the settings do not do.
        """
        raise NotImplementedError

    def default(self, own: DataConfig) -> C:
        """The settings under the protocol's own name.

        Args:
            own: the recipe's linear probe. The protocol whose settings these are takes them whole, others look at the
                same data.
        """
        if isinstance(own, self.config):
            return own
        known = {spec.name for spec in dataclasses.fields(self.config)}
        shared = {spec.name: getattr(own, spec.name) for spec in dataclasses.fields(DataConfig) if spec.name in known}
        return self.config(**shared)

    def published(self, name: str, config: C, scenes: tuple[int, int]) -> Published:
        """The published counterpart.

        Args:
            name: by which the protocol was asked for. config: its settings as they were used. scenes: training and
                validation scenes.
        """
        return Published(source="nothing was published for this protocol")

    def describe(self, subject: Subject, config: C) -> dict[str, Any]:
        """What else an entry of the results says; JSON."""
        return {}

    def check(self, name: str, network: Exported) -> None:
        """Raise `RecipeError` where a network is not what the protocol needs."""
        if not isinstance(network, self.needs):
            raise RecipeError(
                f"protocol {name!r} judges a {self.needs.__name__}, and a {network.config.kind!r} is none; take it off"
                " the protocols of the recipe"
            )


class StudentProtocol(Protocol[D]):
    """A protocol for what encodes clouds, on scenes with labels."""

    needs = Student

    def describe(self, subject: Subject, config: D) -> dict[str, Any]:
        domain = str(subject.corpus.index.column("domain")[int(train_rows(subject.corpus, config)[0])])
        return {
            "taxonomy": config.taxonomy,
            "training_data": config.choice,
            "student_voxel": subject.student.config.voxel_size(domain),
        }
