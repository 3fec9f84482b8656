"""What configs of diffusers may ask for: a key whose effect is not had here is refused by name, and never ignored.

Three kinds of keys are known of every class. Those in `FREE` may say anything: they are read here, or diffusers builds the
network by them and it needs nothing else when it is called, or they say nothing that lasts (how a sampler of diffusers takes
its steps, what size a training had). Those in `FIXED` must say what is written there, which is diffusers' own default. Any
other key is unknown, and may say nothing but null, false or an empty list.
"""

from __future__ import annotations

from typing import Any

from wsigen.base.errors import BundleError
from wsigen.models.network_config import Config

_KL_AND_VQ = (
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block", "act_fn",
    "latent_channels", "norm_num_groups", "sample_size", "scaling_factor", "force_upcast", "mid_block_add_attention",
)  # fmt: skip

_UNETS = (
    "sample_size", "in_channels", "out_channels", "center_input_sample", "freq_shift", "flip_sin_to_cos", "down_block_types",
    "mid_block_type", "up_block_types", "block_out_channels", "layers_per_block", "mid_block_scale_factor",
    "downsample_padding", "dropout", "act_fn", "attention_head_dim", "norm_num_groups", "norm_eps", "resnet_time_scale_shift",
    "num_class_embeds", "time_embedding_dim",
)  # fmt: skip

_TRANSFORMERS = (
    "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "num_layers", "dropout", "norm_num_groups",
    "attention_bias", "sample_size", "patch_size", "activation_fn", "num_embeds_ada_norm", "upcast_attention",
    "norm_elementwise_affine", "norm_eps",
)  # fmt: skip

_SCHEDULES = (
    # which noise levels there are, and what the network says of them
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "clip_sample",
    "clip_sample_range", "rescale_betas_zero_snr",
    # how diffusers' own samplers go through them
    "set_alpha_to_one", "steps_offset", "timestep_spacing", "skip_prk_steps", "solver_order", "solver_type", "solver_p",
    "algorithm_type", "lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
    "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped", "sigma_min", "sigma_max", "interpolation_type",
    "predict_x0", "disable_corrector", "predictor_order", "corrector_order", "tau_func", "noise_sampler_seed", "eta",
    "original_inference_steps", "timestep_scaling",
    # parts of what is switched off below
    "dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "time_shift_type",
)  # fmt: skip

FREE: dict[str, frozenset[str]] = {
    "AutoencoderKL": frozenset(
        {*_KL_AND_VQ, "shift_factor", "latents_mean", "latents_std", "use_quant_conv", "use_post_quant_conv"}
    ),
    "VQModel": frozenset({*_KL_AND_VQ, "num_vq_embeddings", "vq_embed_dim"}),
    "AutoencoderTiny": frozenset({
        "in_channels", "out_channels", "encoder_block_out_channels", "decoder_block_out_channels", "act_fn", "latent_channels",
        "num_encoder_blocks", "num_decoder_blocks", "latent_magnitude", "latent_shift", "force_upcast", "scaling_factor",
        "shift_factor", "upsampling_scaling_factor",
        "block_out_channels",  # which diffusers adds when it saves one
    }),
    "UNet2DModel": frozenset({
        *_UNETS, "downsample_type", "upsample_type", "attn_norm_num_groups", "add_attention", "num_train_timesteps",
    }),
    "UNet2DConditionModel": frozenset({
        *_UNETS, "cross_attention_dim", "only_cross_attention", "transformer_layers_per_block",
        "reverse_transformer_layers_per_block", "num_attention_heads", "dual_cross_attention", "use_linear_projection",
        "upcast_attention", "resnet_skip_time_act", "resnet_out_scale_factor", "time_embedding_act_fn", "timestep_post_act",
        "conv_in_kernel", "conv_out_kernel", "class_embeddings_concat", "mid_block_only_cross_attention",
        "cross_attention_norm", "addition_time_embed_dim", "addition_embed_type_num_heads",
    }),
    "DiTTransformer2DModel": frozenset(_TRANSFORMERS),
    "PixArtTransformer2DModel": frozenset({*_TRANSFORMERS, "cross_attention_dim", "interpolation_scale", "caption_channels"}),
    "scheduler": frozenset(_SCHEDULES),
    "flow": frozenset({
        *_SCHEDULES, "shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "stochastic_sampling",
    }),
}  # fmt: skip
"""Keys that may say anything, by class; all schedulers are one kind, and those of flow matching another."""

_FIXED_SCHEDULES: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "timestep_type": ("discrete",),
    "use_dynamic_shifting": (False,),
    "shift_terminal": (None,),
    "predict_epsilon": (True,),
}

FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "AutoencoderKL": {},
    "VQModel": {"norm_type": ("group",), "lookup_from_codebook": (False,)},
    "AutoencoderTiny": {"upsample_fn": ("nearest",)},
    "UNet2DModel": {"class_embed_type": (None,), "time_embedding_type": ("positional",)},
    "UNet2DConditionModel": {
        "class_embed_type": (None,),
        "addition_embed_type": (None,),
        "projection_class_embeddings_input_dim": (None,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "time_cond_proj_dim": (None,),
        "time_embedding_type": ("positional",),
        "attention_type": ("default",),
    },
    "DiTTransformer2DModel": {"norm_type": ("ada_norm_zero",)},
    "PixArtTransformer2DModel": {
        "norm_type": ("ada_norm_single",),
        "use_additional_conditions": (False,),
        "attention_type": ("default",),
    },
    "scheduler": _FIXED_SCHEDULES | {"use_flow_sigmas": (False,)},
    "flow": _FIXED_SCHEDULES | {"use_flow_sigmas": (True, False), "invert_sigmas": (False,)},
}
"""Values that other keys may have, by class: the default comes first, or is as good."""

_NOTHING: tuple[Any, ...] = (None, False, [], {})
"""What an unknown key may say."""


def demand_supported(config: Config, part: str, where: object) -> None:
    """Refuse what a config asks for and is not done here.

    Parameters
    ----------
    config : dict
        Of a class in `FREE`, or of a scheduler.
    part : str
        ``vae``, ``unet``, ``transformer``, ``scheduler``, or ``flow``: a scheduler of flow matching.
    where : object
        Begins the message.

    Raises
    ------
    BundleError
        It names the key and its value.
    """
    schedules = part in ("scheduler", "flow")
    kind, said = (part, "scheduler") if schedules else (str(config.get("_class_name")), part)
    for key, value in config.items():
        if key.startswith("_") or key in FREE[kind]:
            continue
        allowed = FIXED[kind].get(key, _NOTHING)
        # null, false and 0 are one to people who write configs, and to diffusers' own tests of these keys
        if any(value == one or (not value and not one) for one in allowed):
            continue
        only = f"only {' or '.join(map(_word, allowed))} is" if key in FIXED[kind] else "it is not known here"
        raise BundleError(
            f"{where}: {said} {key} {_word(value)} is not supported ({only}), and without it the model would draw something "
            "else: use another model"
        )


def _word(value: Any) -> str:
    """A value as JSON says it, shortened."""
    words = {None: "null", True: "true", False: "false"}
    said = words[value] if value is None or isinstance(value, bool) else repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."
