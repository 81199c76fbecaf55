"""Models that talk: MLflow's chat and agent interfaces, and plain models asked in the formats of completions and
embeddings.

Their answers carry no time and no random id, so that two servers give the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.pyfunc import ChatAgent, ChatModel, PythonModel, PythonModelContext, ResponsesAgent
from mlflow.types.agent import ChatAgentChunk, ChatAgentMessage, ChatAgentResponse, ChatContext
from mlflow.types.llm import (
    ChatChoice,
    ChatChoiceDelta,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionResponse,
    ChatMessage,
    ChatParams,
)
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
)


class EchoChat(ChatModel):
    """Says the last message again, in capitals; streams it word by word."""

    def predict(
        self, context: PythonModelContext, messages: list[ChatMessage], params: ChatParams
    ) -> ChatCompletionResponse:
        text = f"{messages[-1].content} ({params.temperature}, {params.max_tokens})".upper()
        choice = ChatChoice(message=ChatMessage(role="assistant", content=text))
        return ChatCompletionResponse(choices=[choice], model="echo", created=0)

    def predict_stream(
        self, context: PythonModelContext, messages: list[ChatMessage], params: ChatParams
    ) -> Generator[ChatCompletionChunk, None, None]:
        for word in str(messages[-1].content).upper().split():
            delta = ChatChoiceDelta(role="assistant", content=word)
            yield ChatCompletionChunk(choices=[ChatChunkChoice(delta=delta)], model="echo", created=0)


class EchoAgent(ChatAgent):
    """A ChatAgent that says the last message again."""

    def predict(
        self,
        messages: list[ChatAgentMessage],
        context: ChatContext | None = None,
        custom_inputs: dict[str, Any] | None = None,
    ) -> ChatAgentResponse:
        text = f"{messages[-1].content} {custom_inputs}"
        return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", content=text, id="m1")])

    def predict_stream(
        self,
        messages: list[ChatAgentMessage],
        context: ChatContext | None = None,
        custom_inputs: dict[str, Any] | None = None,
    ) -> Generator[ChatAgentChunk, None, None]:
        for word in str(messages[-1].content).split():
            yield ChatAgentChunk(delta=ChatAgentMessage(role="assistant", content=word, id="m1"))


class EchoResponses(ResponsesAgent):
    """A ResponsesAgent that says the last input again."""

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        return ResponsesAgentResponse(output=[self.create_text_output_item(_last_text(request), id="m1")])

    def predict_stream(
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        for word in _last_text(request).split():
            yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=word, item_id="m1"))
        item = self.create_text_output_item(_last_text(request), id="m1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


def _last_text(request: ResponsesAgentRequest) -> str:
    return str(request.input[-1].model_dump()["content"])


class Completions(PythonModel):
    """Completes a prompt, and does what the prompt says while it streams; has no signature.

    ``count:<n>`` yields numbers, ``endless`` items without end, ``fail`` one item and an error, ``refuse`` an error
    at once, ``hang`` one item and nothing more, ``exit`` one item and the end of the process.
    """

    def predict(self, context: PythonModelContext, model_input: Any, params: Any = None) -> Any:
        return {"choices": [{"text": model_input["prompt"][::-1], "keys": sorted(model_input)}]}

    def predict_stream(
        self, context: PythonModelContext, model_input: Any, params: Any = None
    ) -> Iterator[Any]:
        word, _, argument = str(model_input["prompt"]).partition(":")
        if word == "refuse":
            raise MlflowException.invalid_parameter_value("the model refuses this prompt")
        for number in range(int(argument or 1)):
            yield {"text": f"{word} {number}"}
        if word == "fail":
            raise ValueError("the model lost its thread")
        if word == "hang":
            time.sleep(600)
        if word == "exit":
            import os

            time.sleep(0.5)
            os._exit(3)
        while word == "endless":
            yield {"text": "x" * 1000}
            time.sleep(0.002)


class Embeddings(PythonModel):
    """Answers a vector per text; cannot stream."""

    def predict(self, context: PythonModelContext, model_input: Any, params: Any = None) -> Any:
        texts = model_input["input"]
        texts = [texts] if isinstance(texts, str) else texts
        data = [{"index": at, "embedding": [len(text), 0.5]} for at, text in enumerate(texts)]
        return {"object": "list", "data": data, "keys": sorted(model_input)}
