"""The section `model`, and the keys that `data` shares with it: where files come from."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.common.section import Count, Section, Text, contradiction

Source = Annotated[str, Field(pattern=r"^(package|hub|path):.+$")]


class Origin(Section):
    """Where files come from: the keys that `model` and `data` share.

    A `path:` source names the file itself, and DVC detects its changes: there `revision` is ignored, and so is `file`,
    unless it names a file for each ready split.
    """

    source: Source
    revision: Text | None
    file: Text | None

    @property
    def kind(self) -> str:
        """package, hub or path."""
        return self.source.partition(":")[0]

    @property
    def pin(self) -> str | None:
        """The revision, where the source has one."""
        return None if self.kind == "path" else self.revision

    @field_validator("revision")
    @classmethod
    def pins_what_is_not_here(cls, revision: str | None, info: ValidationInfo) -> str | None:
        kind = kind_of(info)
        if kind == "package" and revision is None:
            raise contradiction("expected the sha256 of the package's archive, found null")
        if kind == "hub" and revision is None:
            raise contradiction("expected the commit of the repository, 40 hex digits, found null")
        return revision

    @field_validator("file")
    @classmethod
    def names_what_is_wanted(cls, file: str | None, info: ValidationInfo) -> str | None:
        if file is None and kind_of(info) == "package":
            raise contradiction("expected a file or folder within the package, found null")
        return file


class Model(Origin):
    """The pretrained model."""

    layers: Count | Literal["auto"] | None

    @property
    def wanted(self) -> str | None:
        """The file or folder to take from the source; None: all of it."""
        return None if self.kind == "path" else self.file


def kind_of(info: ValidationInfo) -> str:
    """The kind of the section's source; empty if the source is not valid."""
    return info.data.get("source", "").partition(":")[0]
