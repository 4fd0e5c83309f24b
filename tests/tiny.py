"""A random model that is small enough to train in a test, in Hugging Face format."""

from pathlib import Path

from entrypoint.data.embedded.generate import SYSTEM, generate

VOCABULARY = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(
    folder: Path,
    *,
    tied: bool = True,
    shards: bool = False,
    hidden: int = 64,
    vocabulary: int = VOCABULARY,
) -> Path:
    """Write the model to `folder` and return it. The same call writes the same weights.

    Args:
        tied: whether the output head shares the embedding's weights.
        shards: whether the weights come in several files with an index.
        hidden: width; 512 makes 20 MB of weights.
        vocabulary: tokens that there is room for; the tokenizer has VOCABULARY.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size=f"{hidden * hidden // 40}KB" if shards else "5GB")
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write a chat tokenizer with VOCABULARY tokens to a model's folder."""
    _tokenizer().save_pretrained(folder)


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        str(message["content"])
        for row in generate()["sft/eval.jsonl"]
        for message in row["messages"]  # type: ignore[attr-defined]
    ]
    tokenizer.train_from_iterator([SYSTEM, "system user assistant", *texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )
