"""The base model's folder."""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoModel, PreTrainedConfig

from stages.common import files
from stages.common.errors import PipelineError

READ_PADDING = (
    "big_bird",
    "bigbird_pegasus",
    "canine",
    "convbert",
    "fnet",
    "funnel",
    "nystromformer",
    "xlnet",
    "yoso",
)
"""Families in which a text's answer depends on how far its batch is padded: they mix tokens without regard to the mask,
their head reads the last position, or they attend to all tokens in short batches alone (BigBird)."""

STARTED_BY_LAST_TOKEN = ("mbart", "plbart")
"""Encoder-decoders whose decoder begins with the text's last token, its language's."""

OF_EACH_LAYER = ("layer_types", "mlp_layer_types", "attention_layers")
"""Lists in a configuration that have an entry for each layer."""


def quiet_transformers() -> None:
    """Silence transformers' warnings and progress bars: a fresh head has no saved weights, as intended.

    What PEFT calls and transformers will remove (a `FutureWarning`) concerns neither user nor pipeline, whose versions
    are pinned.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")


def load_config(base: Path, **changes: object) -> PreTrainedConfig:
    """The base model's configuration, with the given changes.

    Raises:
        FileNotFoundError: `base` has no config.json; transformers would look for a model of that name on the hub.
        PipelineError: transformers does not know the model, or not as a text classifier.
    """
    (base / "config.json").stat()
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False, **changes)
    except OSError as error:  # no JSON
        with files.reading(base):
            raise error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # the last two: a value of an unexpected type
        reason = str(error).splitlines()[0]
        raise PipelineError(
            f"{base}: expected a model that transformers {transformers.__version__} knows, found: {reason}; "
            "choose another model.source"
        ) from None
    if reason := why_unsupported(config):
        raise PipelineError(
            f"{base}: expected an encoder or a decoder of text, or both, that transformers can classify with, "
            f"found {config.model_type}, {reason}; choose another model.source"
        )
    begins = not config.is_encoder_decoder or config.model_type in STARTED_BY_LAST_TOKEN
    if not begins and getattr(config, "decoder_start_token_id", None) is None:
        raise PipelineError(
            f"{base}: expected decoder_start_token_id in config.json, the token with which {config.model_type}'s "
            f"decoder begins, found none; add it as the model was trained (T5 begins with its pad token, "
            f"{config.pad_token_id})"
        )
    return config


def pretrained(kind: Any, folder: Path, **options: Any) -> Any:
    """What `from_pretrained` of a class makes of a folder that a command wrote; code in the folder is never run.

    Raises:
        FileNotFoundError: the folder is missing.
        PipelineError: it is damaged, or cannot be loaded without its code.
    """
    with files.reading(folder):
        try:
            return kind.from_pretrained(folder, trust_remote_code=False, **options)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise PipelineError(
                f"{folder}: expected what transformers {transformers.__version__} loads by itself, found custom code "
                "(auto_map), which is never run; choose another model"
            ) from None


def keep_lowest_layers(base: Path, layers: int | None) -> dict[str, Any]:
    """The changes of the base model's configuration that keep only its lowest `layers` layers; None keeps all.

    Raises:
        PipelineError: the model has fewer layers.
    """
    if layers is None:
        return {}
    config = load_config(base)
    # an encoder-decoder keeps as many of its decoder's; T5 and BART have different names for their number
    decoder = ("num_decoder_layers", "decoder_layers") if config.is_encoder_decoder else ()
    kept = {name: min(layers, getattr(config, name)) for name in decoder if hasattr(config, name)}
    if layers > config.num_hidden_layers:
        raise PipelineError(
            f"model.layers: expected at most the model's {config.num_hidden_layers} layers, or null for all of them, "
            f"found {layers}"
        )
    # what is computed from the number of layers (Jamba) cannot be set
    given = [name for name in OF_EACH_LAYER if not isinstance(getattr(type(config), name, None), property)]
    kinds = {name: values[:layers] for name in given if (values := getattr(config, name, None))}
    return {"num_hidden_layers": layers} | kept | kinds


def why_unsupported(config: PreTrainedConfig) -> str | None:
    """Why a model cannot be made a text classifier here; None: it can."""
    if "text_config" in config.sub_configs or (config.is_encoder_decoder and config.sub_configs):
        return f"a model with several parts ({', '.join(config.sub_configs)})"
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return "for which transformers has no sequence classification head"
    if config.model_type in READ_PADDING:
        return "whose answer for a text depends on the padding beside it"
    if not hasattr(config, "num_hidden_layers"):
        return "whose layers are not a stack of blocks"
    return None


def max_tokens(config: PreTrainedConfig) -> float:
    """The most tokens that a model takes in a row; infinite if it has relative positions only (Bloom; XLNet sets -1).

    An embedding table of positions with a padding index counts from the position after it (RoBERTa: 514 positions, 512
    tokens).
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return math.inf
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    tables = [part for name, part in model.named_modules() if name.endswith("position_embeddings")]
    paddings = [getattr(table, "padding_idx", None) for table in tables]
    return positions - max((index + 1 for index in paddings if index is not None), default=0)
