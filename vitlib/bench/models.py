"""The same Vision Transformer in several libraries, with the same weights where theirs correspond.

Peers are those that are installed: timm, torchvision, Hugging Face's transformers, vit-pytorch.
Each builder takes a model of ours and returns theirs, of the same sizes and with a copy of its
weights. vit-pytorch's has no biases in front of attention and a norm more at its start, so it keeps
weights of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from torch import Tensor, nn

from vitlib.config import ViTConfig, named_config
from vitlib.nn.vit import VisionTransformer


@dataclass(frozen=True)
class Size:
    """A model's sizes, and how many images it sees in a step."""

    config: ViTConfig
    batch: int


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "32 px, patch 4, D 192, L 6": Size(
            ViTConfig(
                image_size=32, patch_size=4, num_classes=10, dim=192, depth=6, heads=3, mlp_dim=768
            ),
            batch=64,
        ),
        "28 px, patch 4, D 64, L 6": Size(
            ViTConfig(
                image_size=28, patch_size=4, num_classes=10, dim=64, depth=6, heads=4, mlp_dim=128
            ),
            batch=128,
        ),
        "Ti/16 at 224 px": Size(named_config("vit_tiny_patch16_224"), batch=8),
    }
)
"""What is measured. Three colours everywhere, since torchvision's models know no others."""

ModelOf = Callable[[VisionTransformer], nn.Module]


def timm(ours: VisionTransformer) -> nn.Module:
    """timm's, whose names are ours."""
    config = ours.config
    model = import_module("timm.models.vision_transformer").VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.in_channels,
        num_classes=config.num_classes,
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_dim / config.dim,
    )
    model.load_state_dict(ours.state_dict())
    return model


def hugging_face(ours: VisionTransformer) -> nn.Module:
    """Hugging Face's, whose queries, keys and values are three layers."""
    transformers, config = import_module("transformers"), ours.config
    model = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=config.in_channels,
            num_labels=config.num_classes,
            hidden_size=config.dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_dim,
            layer_norm_eps=config.layer_norm_eps,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    model.load_state_dict(_hugging_face_weights(ours))
    return _LogitsOf(model)


class _LogitsOf(nn.Module):
    """A model that returns logits, of one that returns them with other things."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Their logits."""
        return self.model(images).logits


def _hugging_face_weights(ours: VisionTransformer) -> dict[str, Tensor]:
    renamed = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "norm": "vit.layernorm",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "head": "classifier",
    }
    theirs: dict[str, Tensor] = {}
    for name, weight in ours.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if not layer:
            theirs[renamed[name]] = weight
        elif layer.startswith("blocks."):
            _, number, part = layer.split(".", 2)
            block = f"vit.layers.{number}"
            if part == "attn.qkv":
                for letter, third in zip("qkv", weight.chunk(3), strict=True):
                    theirs[f"{block}.attention.{letter}_proj.{kind}"] = third
            else:
                theirs[f"{block}.{renamed[part]}.{kind}"] = weight
        else:
            theirs[f"{renamed[layer]}.{kind}"] = weight
    return theirs


def torchvision(ours: VisionTransformer) -> nn.Module:
    """torchvision's, whose attention is PyTorch's own module."""
    config = ours.config
    model = import_module("torchvision.models").VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_layers=config.depth,
        num_heads=config.heads,
        hidden_dim=config.dim,
        mlp_dim=config.mlp_dim,
        num_classes=config.num_classes,
    )
    model.load_state_dict(_torchvision_weights(ours))
    return model


def _torchvision_weights(ours: VisionTransformer) -> dict[str, Tensor]:
    renamed = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "norm": "encoder.ln",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
        "head": "heads.head",
    }
    theirs: dict[str, Tensor] = {}
    for name, weight in ours.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if not layer:
            theirs[renamed[name]] = weight
        elif layer.startswith("blocks."):
            _, number, part = layer.split(".", 2)
            block = f"encoder.layers.encoder_layer_{number}"
            if part == "attn.qkv":  # a parameter of the module itself
                theirs[f"{block}.self_attention.in_proj_{kind}"] = weight
            else:
                theirs[f"{block}.{renamed[part]}.{kind}"] = weight
        else:
            theirs[f"{renamed[layer]}.{kind}"] = weight
    return theirs


def vit_pytorch(ours: VisionTransformer) -> nn.Module:
    """vit-pytorch's, with weights of its own."""
    config = ours.config
    return import_module("vit_pytorch").ViT(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_classes,
        channels=config.in_channels,
        dim=config.dim,
        depth=config.depth,
        heads=config.heads,
        dim_head=config.dim // config.heads,
        mlp_dim=config.mlp_dim,
    )


PEERS: Mapping[str, ModelOf] = MappingProxyType(
    {
        "timm": timm,
        "Hugging Face": hugging_face,
        "torchvision": torchvision,
        "vit-pytorch": vit_pytorch,
    }
)
