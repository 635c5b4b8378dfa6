"""What servers say about a prompt or an answer that is too long, one row for each wording."""

import pytest

from anyclaude.relay.overflow import Overflow, find_overflow, longest_answer

# Name, message, error fields, tokens of the prompt and of the window.
COUNTED = [
    (
        "sglang",
        "The input (345516 tokens) is longer than the model's context length (262144 tokens).",
        {},
        345516,
        262144,
    ),
    (
        "sglang-total",
        "Requested token count exceeds the model's maximum context length of 4096 tokens. "
        "You requested a total of 7000 tokens: 5000 tokens from the "
        "input messages and 2000 tokens for "
        "the completion.",
        {},
        5000,
        4096,
    ),
    (
        "copilot",
        "prompt token count of 74490 exceeds the limit of 72000",
        {"code": "model_max_prompt_tokens_exceeded"},
        74490,
        72000,
    ),
    (
        "xai",
        "This model's maximum prompt length is 131072 but the request contains 140210 tokens.",
        {},
        140210,
        131072,
    ),
    (
        "kimi",
        "Invalid request: Your request exceeded model token limit: 262144 (requested: 291234)",
        {},
        291234,
        262144,
    ),
    (
        "gemini",
        "The input token count (1250034) exceeds the maximum number of tokens allowed (1048576).",
        {},
        1250034,
        1048576,
    ),
    (
        "vertex",
        "Unable to submit request because the input token count is 1251952 but model only "
        "supports up to 1048576. Reduce the input token count and try again.",
        {},
        1251952,
        1048576,
    ),
    (
        "tgi",
        "Input validation error: `inputs` must have less than 32768 tokens. Given: 40123",
        {},
        40123,
        32768,
    ),
    (
        "tgi-total",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: "
        "5000 `inputs` tokens and 2000 `max_new_tokens`",
        {},
        5000,
        4096,
    ),
    (
        "vllm",
        "This model's maximum context length is 32768 tokens. However, your request has 40123 "
        "input tokens. Please reduce the length of the input messages.",
        {},
        40123,
        32768,
    ),
    (
        "vllm-input",
        "Input length (40123) exceeds model's maximum context length (32768).",
        {},
        40123,
        32768,
    ),
    (
        "deepseek",
        "This model's maximum context length is 131072 tokens. However, you requested 141134 "
        "tokens (132942 in the messages, 8192 in the completion).",
        {},
        132942,
        131072,
    ),
    (
        "openai-old",
        "This model's maximum context length is 4097 tokens, however you requested 5116 "
        "tokens (4860 in your prompt; 256 for  the completion).",
        {},
        4860,
        4097,
    ),
    (
        "azure",
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in "
        "300000 tokens. Please reduce the length of the messages.",
        {},
        300000,
        272000,
    ),
    (
        "separators",
        "This model's maximum context length is 131,072 tokens. However, your messages "
        "resulted in 140,001 tokens.",
        {},
        140001,
        131072,
    ),
    (
        "llama-cpp",
        "request (24071 tokens) exceeds the available context size (8192 tokens), try "
        "increasing it",
        {},
        24071,
        8192,
    ),
    (
        "llama-cpp-fields",
        "the request exceeds the available context size. try increasing the context "
        "size or enable context shift",
        {"type": "exceed_context_size_error", "n_prompt_tokens": 14429, "n_ctx": 8192},
        14429,
        8192,
    ),
    ("llama-cpp-python", "Requested tokens (2285) exceed context window of 2048", {}, 2285, 2048),
    ("lmstudio", "Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)", {}, 9000, 4096),
    (
        "mistral",
        "Prompt contains 40123 tokens and 0 draft tokens, too large for model with 32768 "
        "maximum context length",
        {},
        40123,
        32768,
    ),
    (
        "fireworks",
        "The prompt is too long: 140000, model maximum context length: 131071",
        {},
        140000,
        131071,
    ),
    ("anthropic", "prompt is too long: 210000 tokens > 200000 maximum", {}, 210000, 200000),
    (
        "lines",
        "This model's maximum context length is 4096\n tokens. However, your messages\n "
        "resulted in 5000 tokens.",
        {},
        5000,
        4096,
    ),
]
COUNTED += [
    ("sambanova", "Requested generation length 1000 is not possible! The provided prompt is 5000 "
     "tokens long, but the maximum supported sequence length is just 4096 tokens!", {}, 5000, 4096),
    ("sglang-allowed", "Input length (5000 tokens) exceeds the maximum allowed length (4096 "
     "tokens). Use a shorter input.", {}, 5000, 4096),
    ("doubao", "Input length 131073 exceeds the maximum length 131072", {}, 131073, 131072),
    ("vllm-engine", "The engine prompt length 5000 exceeds the max_model_len 4096. Please reduce "
     "prompt.", {}, 5000, 4096),
    ("unknown", "The prompt (5000 tokens) exceeds the model's context window (4096 tokens)",
     {}, 5000, 4096),
    ("lmstudio-keep", "The number of tokens to keep from the initial prompt is greater than the "
     "context length (n_keep: 9000>= n_ctx: 4096).", {}, 9000, 4096),
    ("vllm-output", "This model's maximum context length is 4096 tokens. However, you requested "
     "64000 output tokens and your prompt contains at least 5000 input tokens, for a total of at "
     "least 69000 tokens.", {}, 5000, 4096),
    ("vllm-decoder", "The decoder prompt (length 5000) is longer than the maximum model length of "
     "4096.", {}, 5000, 4096),
    ("azure-functions", "This model's maximum context length is 4096 tokens. However, you "
     "requested 9000 tokens (5000 in the messages, 1000 in the functions, and 3000 in the "
     "completion).",
     {}, 6000, 4096),
    ("openrouter-tools", "This endpoint's maximum context length is 4096 tokens. However, you "
     "requested about 9000 tokens (5000 of text input, 1000 of tool input, 3000 in the output).",
     {}, 6000, 4096),
    ("tabby", "Prompt length 5000 is greater than max_seq_len 4096", {}, 5000, 4096),
    ("omlx", "Prompt too long: 5000 tokens exceeds max context window of 4096 tokens",
     {}, 5000, 4096),
    ("unknown-but", "Prompt has 5000 tokens, but the model's context window is 4096",
     {}, 5000, 4096),
    ("siliconflow", "length of prompt_tokens (5000) must be less than max_seq_len (4096).", {},
     5000, 4096),
    ("cohere-v2", "too many tokens: total number of tokens in the prompt cannot exceed 4096 - "
     "received 5000. Try using a shorter prompt.", {}, 5000, 4096),
    ("watsonx", "the number of input tokens 5000 cannot exceed the total tokens limit 4096 for "
     "this model", {}, 5000, 4096),
    ("nova", "Too many input tokens. Max input tokens: 4096, request input token count: 5000", {},
     5000, 4096),
    ("tensorrt", "Prompt length (5000) exceeds maximum input length (4096). Set max_input_len to a "
     "larger value", {}, 5000, 4096),
    ("vllm-old", "Input prompt (5000 tokens) is too long and exceeds limit of 4096", {},
     5000, 4096),
    ("transformers", "Token indices sequence length is longer than the specified maximum sequence "
     "length for this model (5000 > 4096)", {}, 5000, 4096),
    ("gateway", "Error code: 400 - {'error': 'Input is too long: 5000 > 4096'}", {}, 5000, 4096),
    ("unknown-n-ctx", "n_tokens 5000 exceeds n_ctx 4096", {}, 5000, 4096),
    ("unknown-kv", "Failed to process prompt: prompt too long for KV cache (5000 > 4096)", {},
     5000, 4096),
    ("unknown-contains", "The maximum context length is 4,096, your prompt contains 5,000 tokens",
     {}, 5000, 4096),
    ("unknown-limit-first", "The context length of the model is 4096 tokens, but the prompt is "
     "5000 tokens", {}, 5000, 4096),
]  # fmt: skip
UNCOUNTED = [
    ("glm", "Prompt exceeds max length", {"code": "1261"}),
    (
        "qwen",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]",
        {},
    ),
    ("ollama", "prompt too long; exceeded max context length by 812 tokens", {}),
    ("ollama-length", "the input length exceeds the context length", {}),
    (
        "groq",
        "Please reduce the length of the messages or completion.",
        {"code": "context_length_exceeded"},
    ),
    ("bedrock", "Input is too long for requested model.", {}),
    ("minimax", "invalid params, context window exceeds limit (2013)", {}),
    (
        "openai",
        "Your input exceeds the context window of this model. Please adjust your input.",
        {},
    ),
    ("vllm-negative", "max_tokens must be at least 1, got -904.", {}),
    ("cohere", "too many tokens: size limit exceeded by 1000 tokens.", {}),
    ("code-only", "Invalid request", {"code": "context_length_exceeded"}),
    ("litellm", "litellm.ContextWindowExceededError: OpenAIException", {}),
    ("github", "Request body too large for gpt-4.1 model. Max size: 8000 tokens.", {}),
    ("moonshot", "Total tokens of image and text exceed max message tokens.", {}),
    ("limit", "Token limit exceeded: 5000/4096", {}),
    ("dashscope-total", "Total message token length exceed model limit (10000000 tokens).", {}),
    ("azure-code", "Bad request", {"code": "tokens_limit_reached"}),
    ("maximum", "The request was rejected because it exceeds the maximum number of tokens", {}),
    (
        "cloudflare",
        "The estimated number of input and maximum output tokens (10000) exceeded this "
        "model context window limit (7968).",
        {},
    ),
    ("capitals", "PROMPT IS TOO LONG", {}),
    ("vllm-characters", "You passed 32769 input characters and requested 1 output tokens. However, "
     "the model's context length is only 4096 tokens", {}),
    ("llama-cpp-shift", "context shift is disabled", {}),
    ("kimi-limit", "Your request exceeded model token limit: 131072", {}),
    ("total", "Total tokens 140000 exceed the model's max length 131072", {}),
    ("claude-web", "The message you submitted was too long, please reload the conversation.", {}),
    ("conversation", "Conversation too long", {}),
    ("sequence", "maximum sequence length is 4096 but got 5000", {}),
    ("inputs", "inputs too long for model: 5000 > 4096", {}),
    ("large", "prompt too large: 5000 tokens, limit 4096", {}),
    ("input-tokens", "Too many input tokens. Max input tokens: 4096, prompt token count: 5000", {}),
    ("bytes-google", "Request payload size exceeds the limit: 524288 bytes.", {}),
    ("bytes-bedrock", "too many total text bytes: 512345 > 500000", {}),
    ("unknown-full", "The context window is full", {}),
    ("unknown-limit", "exceeds token limit", {}),
    ("unknown-messages", "Your messages are too long for this model", {}),
    ("unknown-needs", "Not enough context: the request needs 5000 tokens", {}),
    ("unknown-both", "Prompt tokens (5000) + max_tokens (32000) exceeds max context 4096", {}),
    ("unknown-shorter", "Please ensure your prompt is shorter than the model's context window "
     "(4096 tokens)", {}),
    ("unknown-fit", "The prompt does not fit into the context window", {}),
    ("unknown-k", "Model context window is 128k tokens, you requested 256k tokens", {}),
    ("unknown-request", "Request size exceeds model context window", {}),
    ("chinese", "\u8f93\u5165\u957f\u5ea6\u8d85\u8fc7\u6a21\u578b\u9650\u5236", {}),
    ("tensorrt-sum", "The sum of prompt length (5000.0), query length (0) and max_tokens (32000) "
     "should not exceed max_seq_len (4096)", {}),
    ("code-watsonx", "input token count is above the limit", {"code": "token_quantity_exceeded"}),
    ("code-in-param", "Expected a string with maximum length 10, but got one with length 20.",
     {"code": "string_above_max_length", "param": "messages[1].content"}),
    ("code-prompt", "Bad request", {"code": "prompt_tokens_exceeded"}),
    ("openai-string", "Invalid 'messages[1].content': string too long.",
     {"code": "string_above_max_length"}),
]  # fmt: skip
OTHERS = [
    "Rate limit reached for gpt-4o on tokens per min (TPM): "
    "Limit 30000, Used 20000, Requested 15000.",
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64.",
    "The image size exceeds the limit of 5 MB.",
    "You exceeded your current quota, please check your plan and billing details.",
    "max_tokens is too large: 64000. This model supports at most 8192 completion tokens.",
    "Invalid 'stop': array too long.",
    "max_tokens exceeds the maximum number of tokens 4096",
    "This model only supports single tool-calls at once!",
    "The input image 5000 exceeds 4096 pixels",
    "model `x` not found",
    "Invalid 'messages[1].tool_calls[0].id': string too long. (string_above_max_length)",
    "tool name exceeds the maximum length of 64",
    "tools.0.description: string should have at most 1024 characters",
    "input contains more than 100 images: limit exceeded",
    "metadata.user_id exceeds maximum length 64",
    "max_tokens (64000) is greater than the model's maximum output tokens (8192)",
    "The model's max output tokens is 8192, but max_tokens is 64000",
    "The model's context window is too small (minimum is 32768 tokens)",
    "request reached organization TPD rate limit, current: 1506556, limit: 1500000",
    "Number of request tokens has exceeded your per-model limit",
    "input token limit exceeded for this minute",
    "Prompt tokens limit exceeded: 20000 > 1500. Upgrade to a paid account.",
    "Too many tokens, please wait before trying again.",
    "A maximum of 4 blocks with cache_control may be provided, and the prompt exceeds it: 5.",
    "upstream timed out: context deadline exceeded",
    "Last message must be from the user, but got assistant at 1234",
    "Your token has exceeded its lifetime",
    "Unexpected token '<' in JSON at position 12345",
    "Too many messages with role system",
    "Invalid chat format: expected a string, but message 1024 holds a list",
]


@pytest.mark.parametrize(
    ("message", "details", "prompt", "window"),
    [pytest.param(*row, id=name) for name, *row in COUNTED],
)
def test_counts_of_each_wording(message, details, prompt, window):
    """The counts in a server's words become those of the API's sentence."""
    overflow = find_overflow(message, details)
    assert overflow == Overflow(prompt, window)
    assert overflow.error("it", 1).message == (
        f"prompt is too long: {prompt} tokens > {window} maximum"
    )


@pytest.mark.parametrize(
    ("message", "details"), [pytest.param(*row, id=name) for name, *row in UNCOUNTED]
)
def test_wordings_without_counts(message, details):
    """Without counts the client still compacts, since the sentence begins as the API's does."""
    overflow = find_overflow(message, details)
    assert overflow is not None
    assert overflow.error("it", 1).message.startswith("prompt is too long")


@pytest.mark.parametrize("message", OTHERS)
def test_other_limits_are_no_overflow(message):
    """A limit of something else does not make the client compact."""
    assert find_overflow(message, {}) is None


@pytest.mark.parametrize(
    ("message", "total"),
    [
        (
            "Please reduce the length of the messages or completion. "
            "Current length is 42328 while limit "
            "is 40000",
            42328,
        ),
        (
            "Request too large for model `m` on tokens per minute (TPM): "
            "Limit 40000, Requested 42328, "
            "please reduce your message size and try again.",
            42328,
        ),
    ],
    ids=["cerebras", "groq"],
)
@pytest.mark.parametrize(("requested", "prompt"), [(32000, 10328), (1000, 41328), (50000, 42328)])
def test_a_total_includes_the_requested_answer(message, total, requested, prompt):
    """Where a server counts prompt and answer together, the answer is subtracted."""
    assert find_overflow(message, {}, requested_tokens=requested) == Overflow(prompt, 40000)
    assert total == 42328


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("max_tokens exceeds server limit (4096)", 4096),
        (
            "max_tokens is too large: 64000. This model supports at most 16384 completion tokens",
            16384,
        ),
        ("max_tokens: 64000 > 32000, which is the maximum allowed number of output tokens", 32000),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
        (
            "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1,\n 8192]",
            8192,
        ),
        (
            "`max_tokens` must be less than or equal to `32768`, the "
            "maximum value for `max_tokens` is "
            "less than the `context_window` for this model",
            32768,
        ),
        (
            "The parameter max_tokens specified in the request is not "
            "valid: integer above maximum value, "
            "expected a value <= 32768, but got 64000 instead.",
            32768,
        ),
        (
            "Unable to submit request because it has a maxOutputTokens "
            "value of 65536 but the supported "
            "range is from 1 (inclusive) to 8193 (exclusive).",
            8192,
        ),
        ("The maximum tokens you requested exceeds the model limit of 4096.", 4096),
        ("max_completion_tokens must be at most 16,384", 16384),
        ("max_tokens must be between 1 and 8192", 8192),
        ("max_tokens should be in range [1, 4096]", 4096),
        ("Invalid value for 'max_tokens': must be in the range (0, 8192]", 8192),
        ("max_tokens (64000) exceeds the maximum allowed (8192)", 8192),
        ("max_tokens (64000) is greater than the model's maximum output tokens (8192)", 8192),
        ("The maximum allowed value for max_tokens is 8192", 8192),
        ("ensure this value is less than or equal to 8192 (max_tokens)", 8192),
        ("The model's max output tokens is 8192, but max_tokens is 64000", 8192),
        ("max_tokens limit for this model is 8192", 8192),
        ("Requested 64000 output tokens, but it can generate at most 8192 output tokens", 8192),
        ("maximum number of output tokens for this model is 8192, got 64000", 8192),
        ("field MaxTokens invalid, should be in [1, 8192]", 8192),
        ("max_tokens参数非法。取值范围：[1,8192]", 8192),  # noqa: RUF001
        ("The value of max_tokens (64000) must be less than 8193", 8192),
        ("max_tokens must be lower than 8193", 8192),
        ("max_tokens too large, max is 8192", 8192),
        ("max_tokens value too large. Allowed max: 8,192", 8192),
        ("parameter max_tokens is illegal. 64000 is not in [1, 8192]", 8192),
        ("The maximum generation length is 8192, so 64000 is not possible", 8192),
        ("too many output tokens requested: 64000, limit 8192", 8192),
        ("The number of requested output tokens (64000) exceeds the limit (8192)", 8192),
        ("You requested 64000 output tokens but the model supports 8192 output tokens", 8192),
        ("max_tokens has to be smaller or equal 8192", 8192),
        ("max_tokens(64000) > max allowed(8192)", 8192),
        ("Error code: 400 - max_tokens is not valid: 8192 is what this model can write", 8192),
        ("max_tokens (1024) must be greater than budget_tokens (2048)", 0),
        ("max_tokens must be at least 16000", 0),
        (
            "'max_tokens' is too large: 64000. This model's maximum context length is 32768 tokens "
            "and your request has 500 input tokens",
            0,
        ),
        ("This model's maximum context length is 4096 tokens.", 0),
        ("`max_tokens` must be greater than `thinking.budget_tokens`", 0),
    ],
)
def test_the_longest_answer_in_each_wording(message, limit):
    """A server's limit of max_tokens is read from its words; 0 if they name none."""
    assert longest_answer(message) == limit


@pytest.mark.parametrize(
    "message",
    ["max_tokens: 64000", "max_tokens must be more than 64000", "max_tokens 64000, 99000"],
)
def test_the_requested_answer_is_no_limit(message):
    """What the request itself asked for, or more than that, is not the server's limit."""
    assert longest_answer(message, 64000) == 0


def test_the_settings_extend_the_table():
    """A pattern of the settings recognises words that the table does not know."""
    message = "Zu lang: 5000 von 4096"
    assert find_overflow(message, {}) is None
    pattern = r"zu lang: (?P<prompt>\d+) von (?P<window>\d+)"
    assert find_overflow(message, {}, patterns=[pattern]) == Overflow(5000, 4096)
