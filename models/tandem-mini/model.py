"""tandem-mini's architecture (Qwen3, dense), its tokenizer and its GGUF file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
           "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]

# The split of Qwen2's tokenizer: digits one by one, words with one leading mark, runs of marks, white space.
QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")


@dataclass
class Config:
    vocabulary: int = 4096
    width: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 2
    head_width: int = 32
    hidden: int = 640
    context: int = 1024
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-6


class Attention(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.q = nn.Linear(c.width, c.heads * c.head_width, bias=False)
        self.k = nn.Linear(c.width, c.key_value_heads * c.head_width, bias=False)
        self.v = nn.Linear(c.width, c.key_value_heads * c.head_width, bias=False)
        self.o = nn.Linear(c.heads * c.head_width, c.width, bias=False)
        self.q_norm = nn.RMSNorm(c.head_width, c.norm_epsilon)
        self.k_norm = nn.RMSNorm(c.head_width, c.norm_epsilon)

    def forward(self, x, cosine, sine):
        batch, length, _ = x.shape
        heads = lambda t, n: t.view(batch, length, n, self.c.head_width).transpose(1, 2)
        q = rotate(self.q_norm(heads(self.q(x), self.c.heads)), cosine, sine)
        k = rotate(self.k_norm(heads(self.k(x), self.c.key_value_heads)), cosine, sine)
        v = heads(self.v(x), self.c.key_value_heads)
        groups = self.c.heads // self.c.key_value_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o(out.transpose(1, 2).reshape(batch, length, -1))


def rotate(x, cosine, sine):
    """Rotary position, the two halves of a head rotated together (the convention of Qwen)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1).to(x.dtype)


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.attention_norm = nn.RMSNorm(c.width, c.norm_epsilon)
        self.attention = Attention(c)
        self.mlp_norm = nn.RMSNorm(c.width, c.norm_epsilon)
        self.gate = nn.Linear(c.width, c.hidden, bias=False)
        self.up = nn.Linear(c.width, c.hidden, bias=False)
        self.down = nn.Linear(c.hidden, c.width, bias=False)

    def forward(self, x, cosine, sine):
        x = x + self.attention(self.attention_norm(x), cosine, sine)
        h = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    """Logits are the final hidden states times the embedding's transpose: input and output are tied."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.RMSNorm(c.width, c.norm_epsilon)
        angles = torch.outer(torch.arange(c.context).float(),
                             c.rope_base ** (-torch.arange(0, c.head_width, 2).float() / c.head_width))
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, p in self.named_parameters():
            if p.dim() == 2 and "embedding" not in name:
                last = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(p, std=p.shape[1] ** -0.5 * ((2 * c.layers) ** -0.5 if last else 1.0))

    def hidden_states(self, ids):
        x = self.embedding(ids)
        cosine, sine = self.cosine[: ids.shape[1]], self.sine[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, cosine, sine)
        return self.norm(x)

    def forward(self, ids):
        return F.linear(self.hidden_states(ids), self.embedding.weight)

    def loss(self, ids, targets, weights):
        logits = self.forward(ids)
        each = F.cross_entropy(logits.float().view(-1, self.c.vocabulary), targets.reshape(-1), reduction="none")
        return (each * weights.reshape(-1)).sum() / weights.sum(), each


# ---------------------------------------------------------------- tokenizer

def build_tokenizer(tokens, merges):
    """A Hugging Face tokenizer with Qwen2's normalizer, split and byte alphabet."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(tokens, merges) if tokens else models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    if tokens:
        tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return tokenizer


def train_tokenizer(texts, vocabulary, path):
    from tokenizers import Tokenizer, pre_tokenizers, trainers

    tokenizer = build_tokenizer(None, None)
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - len(SPECIAL), min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    tokenizer = build_tokenizer(state["vocab"], [tuple(m) for m in state["merges"]])
    assert tokenizer.get_vocab_size() == vocabulary
    tokenizer.save(str(path))
    return tokenizer


# ---------------------------------------------------------------- GGUF

def gguf_names(c: Config):
    """Our parameter names to llama.cpp's tensor names."""
    names = {"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    for i in range(c.layers):
        for ours, theirs in {
            "attention_norm": "attn_norm", "attention.q": "attn_q", "attention.k": "attn_k", "attention.v": "attn_v",
            "attention.o": "attn_output", "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm",
            "mlp_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
        }.items():
            names[f"blocks.{i}.{ours}.weight"] = f"blk.{i}.{theirs}.weight"
    return names


def write_gguf(path, model: Model, tokenizer, licence="MIT OR Apache-2.0"):
    """One file with everything that inference needs: matrices in Q8_0, norms in F32."""
    import gguf

    c, w = model.c, gguf.GGUFWriter(path, "qwen3")
    w.add_name("tandem-mini")
    w.add_description("A small code model for fill-in-the-middle completions, trained for Tandem.")
    w.add_license(licence)
    w.add_size_label(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_block_count(c.layers)
    w.add_context_length(c.context)
    w.add_embedding_length(c.width)
    w.add_feed_forward_length(c.hidden)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.key_value_heads)
    w.add_key_length(c.head_width)
    w.add_value_length(c.head_width)
    w.add_layer_norm_rms_eps(c.norm_epsilon)
    w.add_rope_freq_base(c.rope_base)
    w.add_vocab_size(c.vocabulary)

    state = json.loads(tokenizer.to_str())["model"]
    tokens = [t for t, _ in sorted(state["vocab"].items(), key=lambda item: item[1])] + SPECIAL
    assert len(tokens) == c.vocabulary and all(tokenizer.token_to_id(t) == i for i, t in enumerate(tokens))
    plain = len(tokens) - len(SPECIAL)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.NORMAL] * plain + [gguf.TokenType.CONTROL] * len(SPECIAL))
    w.add_token_merges([" ".join(m) for m in state["merges"]])
    token = tokenizer.token_to_id
    w.add_eos_token_id(token("<|endoftext|>"))
    w.add_pad_token_id(token("<|endoftext|>"))
    w.add_bos_token_id(token("<|endoftext|>"))
    w.add_add_bos_token(False)
    for key, name in {"pre": "prefix", "suf": "suffix", "mid": "middle", "pad": "pad"}.items():
        w.add_uint32(f"tokenizer.ggml.fim_{key}_token_id", token(f"<|fim_{name}|>"))
    w.add_uint32("tokenizer.ggml.fim_rep_token_id", token("<|repo_name|>"))
    w.add_uint32("tokenizer.ggml.fim_sep_token_id", token("<|file_sep|>"))

    # Not one of llama.cpp's keys: where the suffix stands in the prompt (see README.md).
    w.add_string("tandem.fim_order", "spm")

    parameters = dict(model.named_parameters())
    for ours, theirs in gguf_names(c).items():
        data = parameters[ours].detach().float().numpy()
        if data.ndim == 2:
            q = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(theirs, gguf.quants.quantize(data, q), raw_dtype=q)
        else:
            w.add_tensor(theirs, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read_gguf(path: Path):
    """(config, tensors by llama.cpp's names in float32, tokenizer) of a file that `write_gguf` wrote."""
    import gguf

    reader = gguf.GGUFReader(path)
    value = lambda key: reader.fields[key].contents()
    c = Config(
        vocabulary=len(value("tokenizer.ggml.tokens")), width=value("qwen3.embedding_length"), layers=value("qwen3.block_count"),
        heads=value("qwen3.attention.head_count"), key_value_heads=value("qwen3.attention.head_count_kv"),
        head_width=value("qwen3.attention.key_length"), hidden=value("qwen3.feed_forward_length"),
        context=value("qwen3.context_length"), rope_base=value("qwen3.rope.freq_base"),
        norm_epsilon=value("qwen3.attention.layer_norm_rms_epsilon"))
    tensors = {t.name: np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32) for t in reader.tensors}
    tokens = value("tokenizer.ggml.tokens")[: -len(SPECIAL)]
    merges = [tuple(m.split(" ")) for m in value("tokenizer.ggml.merges")]
    return c, tensors, build_tokenizer({t: i for i, t in enumerate(tokens)}, merges)


def load_ours(path: Path):
    """The PyTorch model with the file's dequantized weights, and its tokenizer."""
    c, tensors, tokenizer = read_gguf(path)
    model = Model(c)
    model.load_state_dict({ours: torch.from_numpy(tensors[theirs]) for ours, theirs in gguf_names(c).items()})
    return model.eval(), tokenizer


def load_reference(path: Path):
    """Hugging Face's Qwen3ForCausalLM (float32) with the file's dequantized weights, and the tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    c, tensors, tokenizer = read_gguf(path)
    reference = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=c.vocabulary, hidden_size=c.width, intermediate_size=c.hidden, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.key_value_heads, head_dim=c.head_width,
        max_position_embeddings=c.context, rms_norm_eps=c.norm_epsilon, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_base}, attention_bias=False,
        bos_token_id=None, eos_token_id=None)).float()
    theirs = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"], "lm_head.weight": tensors["token_embd.weight"],
             "model.norm.weight": tensors["output_norm.weight"]}
    for name, data in tensors.items():
        if name.startswith("blk."):
            _, i, kind, _ = name.split(".")
            state[f"model.layers.{i}.{theirs[kind]}.weight"] = data
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return reference.eval(), tokenizer


def config_dict(c: Config):
    return asdict(c)
