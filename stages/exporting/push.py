"""An exported model in a repository on a Hugging Face hub.

`huggingface_hub` uploads; it honours HF_ENDPOINT and HF_TOKEN. All files arrive in one commit, or none does.
"""

from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from stages.adapters.run import Run
from stages.common import texts
from stages.common.errors import PipelineError
from stages.sources import hub

MESSAGE = "Upload the tuned model with its test results"


def check(repository: str) -> None:
    """Check a name, before anything is computed.

    Raises:
        PipelineError: it is not ORG/NAME.
    """
    with suppress(HFValidationError):
        validate_repo_id(repository)
        if "/" in repository:
            return
    raise PipelineError(f"--push: expected ORG/NAME, found {repository!r}")


def contents(folder: Path, run: Run, names: list[str]) -> str:
    """What everyone sees who may read a repository with the files of this folder, as lines.

    Args:
        names: of the classes.
    """
    files = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*") if path.is_file()]
    sizes = [f"{size / 1e6:10.3f} MB  {name}" for name, size in sorted(files)]
    known = {
        "classes": ", ".join(names) or "none, the answer is a number",
        "template": run.params["encode"]["template"] or "none, the text alone",
        "data.source": run.params["data"]["source"],
        "all parameters and versions of packages": "in run.json",
        "scores on the test rows": "in README.md",
        "texts of the data": "none",
    }
    told = [f"{what}: {texts.printable(texts.shortened(value, 200))}" for what, value in known.items()]
    return "\n".join([*sizes, *told])


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload the files of a folder to a repository, which is made if there is none; returns its address.

    Files of the same name are replaced, others stay.

    Raises:
        PipelineError: the repository exists and is public where it shall be private, or the reverse; or the hub cannot
            be reached, or refuses the request.
    """
    api = HfApi()
    disable_progress_bars()
    with hub.explained(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        found = api.model_info(repository).private
        if found != private:
            kinds = {True: "private", False: "public"}
            raise PipelineError(
                f"hub:{repository}: expected a {kinds[private]} repository, found a {kinds[found]} one; "
                f"{'take another name, or add --public' if private else 'make it public in its settings'}"
            )
        return api.upload_folder(folder_path=folder, repo_id=repository, commit_message=MESSAGE).commit_url
