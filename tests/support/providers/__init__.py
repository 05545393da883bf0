"""Servers of the providers' APIs on loopback, for the real litellm and for the project's own roads.

Each checks its requests as the real API does, answers whole and streamed, counts tokens, plays its cache, and
writes a bill. What is known of the APIs comes from their documentation, the types of their SDKs, Ollama's
source, and reports of users.

`roads.ROADS` says how litellm asks each. `server.ProviderServer` is what they share: `says` (what the model
says), `fail()` (faults, of `server.ProviderFaultKind`), `clock` (time that tests control), `bills` and
`cost`. A request that the API refuses takes no fault away. Tokens are four characters each: the real
tokenizers are not played.

| provider | is spoken | is left out |
| --- | --- | --- |
| OpenAI (`openai_chat`, `_rules`) | chat completions, whole and as SSE with `include_usage` | responses API, audio, files |
| | unknown, contradictory and out-of-range fields | `n` over 1, logprobs, predictions, obfuscation |
| | rules of reasoning models, their tokens, empty content with `length` | |
| | automatic caching, by `prompt_cache_key`; writes that cost more | explicit breakpoints of caches |
| | strict schemas, pictures as data URLs, tools and results | pictures fetched from an address |
| | `seed`, `logit_bias`, `service_tier`: accepted, without effect | prices of flex and priority |
| Anthropic (`anthropic_messages`) | messages, whole and as SSE with `ping`; merged roles | batches, files, documents |
| | marks: four, least length by model, order, lookback of 20 blocks, 5m and 1h, prices | beta headers, prices above 200K tokens |
| | thinking by budget or adaptive; signed and redacted blocks come back unchanged | thoughts dropped from the window |
| | prefill, tools and results, schemas, pictures as base64, all stop reasons | server tools, counting of tokens |
| Gemini (`gemini_generate`) | generateContent; streamGenerateContent as SSE or one array | Vertex AI, files |
| | names in both spellings; budgets and levels of thinking; both kinds of schemas | checks of signatures and function results |
| | safety blocks without candidates, implicit caching (steps of 128: assumed), inline pictures | explicit caches |
| OpenRouter (`openrouter_chat`) | `cost`, `reasoning`, `provider`, comments | fallbacks, plugins |
| | marks passed on; errors in a 200 and in the middle of a stream | the providers' checks of what is passed on |
| Ollama (`ollama_chat`) | `/api/chat` whole and as lines, `/api/show`, `/api/tags` | `/api/generate`, pulls, `keep_alive` |
| | `options` and types, `think`, `format`, `images`, tools, durations | `<think>` in the content: say it as text |
| | a prompt that is cut to `num_ctx` in silence; models that are not there | |
| DeepSeek (`openai_likes`) | `reasoning_content`, counts of cache hits, no schemas, 402 | thoughts that go back with tools |
| vLLM (`openai_likes`) | errors with a number as code, roles by turns, `reasoning`, no key | parameters of guided decoding |
| Azure (`openai_likes`) | deployments, `api-key`, `api-version`, results of filters | Entra tokens, v1 addresses |
| Bedrock | nothing | signed requests, events in binary frames |
"""
