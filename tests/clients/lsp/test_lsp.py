"""Drives `tandem lsp` with pytest-lsp, which also holds every message against the specification."""

import ast
import asyncio
import pathlib
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import pytest_asyncio
from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pytest_lsp import LanguageClient, make_test_lsp_client

from conftest import SOURCE

# Far beyond what any answer takes, so that a hang is a failure and a slow machine is none.
LIMIT_SECONDS = 60
REQUEST_CANCELLED = -32800
AUTOMATIC = lsp.InlineCompletionTriggerKind.Automatic
INVOKED = lsp.InlineCompletionTriggerKind.Invoked


class Editor:
    """An editor with one document open."""

    def __init__(self, client: LanguageClient, server: lsp.InitializeResult, document: pathlib.Path):
        self.client = client
        self.server = server
        self.uri = document.as_uri()
        self.text = SOURCE
        self.version = 1
        self.statuses: list = []
        self.edits: list[lsp.WorkspaceEdit] = []

    def open(self):
        self.client.text_document_did_open(
            lsp.DidOpenTextDocumentParams(
                lsp.TextDocumentItem(self.uri, "rust", self.version, self.text)
            )
        )

    def insert(self, position: lsp.Position, text: str):
        """Types `text`; the document is ASCII, so columns are characters in every encoding."""
        lines = self.text.split("\n")
        line = lines[position.line]
        lines[position.line] = line[: position.character] + text + line[position.character :]
        self.text = "\n".join(lines)
        self.version += 1
        self.client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(
                lsp.VersionedTextDocumentIdentifier(self.version, self.uri),
                [lsp.TextDocumentContentChangePartial(lsp.Range(position, position), text)],
            )
        )

    def cursor(self, after: str) -> lsp.Position:
        """The place behind the first occurrence of `after`."""
        before = self.text[: self.text.index(after) + len(after)]
        return lsp.Position(before.count("\n"), len(before.rpartition("\n")[2]))

    async def inline(
        self,
        position: lsp.Position,
        trigger=AUTOMATIC,
    ) -> list[lsp.InlineCompletionItem]:
        params = lsp.InlineCompletionParams(
            lsp.InlineCompletionContext(trigger),
            lsp.TextDocumentIdentifier(self.uri),
            position,
        )
        result = await within(self.client.text_document_inline_completion_async(params))
        return list(getattr(result, "items", result) or [])

    async def status(self, wanted) -> object:
        """The first `tandem/status` so far or to come that `wanted` accepts."""
        async with asyncio.timeout(LIMIT_SECONDS):
            seen = 0
            while True:
                for status in self.statuses[seen:]:
                    if wanted(status):
                        return status
                seen = len(self.statuses)
                await asyncio.sleep(0.02)


async def within(awaitable):
    return await asyncio.wait_for(awaitable, LIMIT_SECONDS)


def capabilities(inline: bool, resolve: bool) -> lsp.ClientCapabilities:
    return lsp.ClientCapabilities(
        general=lsp.GeneralClientCapabilities(
            position_encodings=[lsp.PositionEncodingKind.Utf8, lsp.PositionEncodingKind.Utf16]
        ),
        text_document=lsp.TextDocumentClientCapabilities(
            inline_completion=lsp.InlineCompletionClientCapabilities() if inline else None,
            completion=lsp.CompletionClientCapabilities(),
            synchronization=lsp.TextDocumentSyncClientCapabilities(),
            code_action=lsp.CodeActionClientCapabilities(
                code_action_literal_support=lsp.ClientCodeActionLiteralOptions(
                    lsp.ClientCodeActionKindOptions(["quickfix", "refactor", "refactor.rewrite"])
                ),
                data_support=resolve,
                resolve_support=lsp.ClientCodeActionResolveOptions(["edit"]) if resolve else None,
            ),
        ),
        window=lsp.WindowClientCapabilities(
            work_done_progress=True, show_document=lsp.ShowDocumentClientCapabilities(True)
        ),
        workspace=lsp.WorkspaceClientCapabilities(
            apply_edit=True,
            configuration=True,
            workspace_edit=lsp.WorkspaceEditClientCapabilities(document_changes=True),
        ),
    )


@pytest_asyncio.fixture
async def start(tandem, environment, workspace):
    """Starts editors. A test that passes ends its own by protocol; any other is ended here."""
    started = []

    async def start(inline: bool = True, resolve: bool = True) -> Editor:
        client = make_test_lsp_client()
        await client.start_io(tandem, "lsp", env=environment)
        editor = Editor(client, None, workspace / "lib.rs")
        started.append(client)

        @client.feature("tandem/status")
        def _(status):
            editor.statuses.append(status)

        @client.feature(lsp.WORKSPACE_APPLY_EDIT)
        def _(params: lsp.ApplyWorkspaceEditParams):
            editor.edits.append(params.edit)
            return lsp.ApplyWorkspaceEditResult(applied=True)

        editor.server = await within(
            client.initialize_session(
                lsp.InitializeParams(
                    capabilities=capabilities(inline, resolve),
                    root_uri=workspace.as_uri(),
                    workspace_folders=[lsp.WorkspaceFolder(workspace.as_uri(), "workspace")],
                )
            )
        )
        editor.open()
        return editor

    yield start
    for client in started:
        if client._server.returncode is None:
            client._server.kill()
        await client.stop()


async def end(editor: Editor) -> int:
    """Says goodbye; the exit code."""
    await within(editor.client.shutdown_session())
    return editor.client._server.returncode


async def test_initialize_offers_what_is_served(start):
    editor = await start()
    offered = editor.server.capabilities
    assert offered.inline_completion_provider
    assert offered.completion_provider is None, "every suggestion would be shown twice"
    assert offered.code_action_provider
    assert offered.execute_command_provider.commands
    assert offered.position_encoding == lsp.PositionEncodingKind.Utf8
    assert offered.text_document_sync.change == lsp.TextDocumentSyncKind.Incremental
    assert editor.server.server_info.name == "tandem"
    assert await end(editor) == 0


def check_item(item: lsp.InlineCompletionItem, line: str, position: lsp.Position):
    """An accepted item must stay right while its user types on: it replaces what is there."""
    assert item.range.start.line == item.range.end.line == position.line
    assert item.range.start.character <= position.character <= item.range.end.character
    typed = line[item.range.start.character : position.character]
    assert item.insert_text.startswith(typed)
    assert len(item.insert_text) > len(typed)


async def test_the_embedded_model_completes_or_says_why_not(start):
    editor = await start()
    items = []
    for line, typed in [(4, ""), (8, ""), (11, ""), (15, "Some(w")]:
        column = len(editor.text.split("\n")[line])
        if typed:
            editor.insert(lsp.Position(line, column), typed)
        position = lsp.Position(line, column + len(typed))
        for trigger, most in [(AUTOMATIC, 1), (INVOKED, 3)]:
            here = await editor.inline(position, trigger)
            assert len(here) <= most
            for item in here:
                check_item(item, editor.text.split("\n")[line], position)
            assert here or editor.statuses[-1].emptyReason
            items += here
    assert items, "it has nothing to say anywhere"
    status = editor.statuses[-1]
    assert (status.backend, status.model) == ("embedded", "tandem-mini")
    assert await end(editor) == 0


@pytest.mark.parametrize("trigger, count", [(AUTOMATIC, 1), (INVOKED, 3)])
async def test_claude_completes_and_the_status_says_so(start, environment, claude, trigger, count):
    environment["TANDEM_MODE"] = "claude-only"
    environment["TANDEM_CLAUDE_AUTOMATIC_COMPLETIONS"] = "true"
    editor = await start()
    editor.insert(lsp.Position(15, 19), "Some(w")
    position = lsp.Position(15, 25)
    items = await editor.inline(position, trigger)
    assert 1 <= len(items) <= count
    for item in items:
        check_item(item, editor.text.split("\n")[position.line], position)
        assert "stand-in for Claude" in item.insert_text
    status = await editor.status(lambda status: status.reason == "mode-claude-only")
    assert status.backend == "claude"
    assert await end(editor) == 0


async def test_completion_for_clients_without_inline_completion(start, environment, claude):
    environment["TANDEM_MODE"] = "claude-only"
    environment["TANDEM_CLAUDE_AUTOMATIC_COMPLETIONS"] = "true"
    editor = await start(inline=False)
    assert editor.server.capabilities.completion_provider
    editor.insert(lsp.Position(15, 19), "Some(w")
    params = lsp.CompletionParams(
        lsp.TextDocumentIdentifier(editor.uri),
        lsp.Position(15, 25),
        context=lsp.CompletionContext(lsp.CompletionTriggerKind.Invoked),
    )
    result = await within(editor.client.text_document_completion_async(params))
    assert result.is_incomplete
    assert result.items, editor.statuses
    assert await end(editor) == 0


async def test_a_position_past_the_end_is_answered(start):
    editor = await start()
    for position in [lsp.Position(10_000, 0), lsp.Position(0, 10_000), lsp.Position(10_000, 10_000)]:
        try:
            await editor.inline(position)
        except JsonRpcException as error:
            assert "." in error.message
    assert await end(editor) == 0


async def test_a_cancel_takes_effect_at_once(start, environment, claude):
    environment["TANDEM_MODE"] = "claude-only"
    editor = await start()
    # The stand-in answers such a document with the start of a stream, and then nothing.
    editor.insert(lsp.Position(15, 0), "            // [stand-in: hang]\n")
    params = lsp.InlineCompletionParams(
        lsp.InlineCompletionContext(INVOKED),
        lsp.TextDocumentIdentifier(editor.uri),
        lsp.Position(16, 19),
    )
    method = lsp.TEXT_DOCUMENT_INLINE_COMPLETION
    pending = asyncio.create_task(
        editor.client.protocol.send_request_async(method, params, msg_id="to-cancel")
    )
    await asyncio.sleep(0.5)
    assert not pending.done(), "the stand-in hangs"
    editor.client.cancel_request(lsp.CancelParams("to-cancel"))
    with pytest.raises(JsonRpcException) as raised:
        await asyncio.wait_for(pending, 5)
    assert raised.value.code == REQUEST_CANCELLED
    assert await end(editor) == 0


def edited_text(edit: lsp.WorkspaceEdit) -> str:
    """All that an edit writes, in whichever of the two forms it comes."""
    changes = [change for document in edit.document_changes or [] for change in document.edits]
    changes += [change for all in (edit.changes or {}).values() for change in all]
    return "".join(change.new_text for change in changes)


def command_of(action: lsp.CodeAction | lsp.Command) -> lsp.ExecuteCommandParams:
    """What a client sends for a chosen action."""
    if isinstance(action, lsp.Command):
        # lsprotocol takes an action that carries a command for a bare command, and what it carries
        # for the name, as Python prints it.
        carried = ast.literal_eval(action.command)
        return lsp.ExecuteCommandParams(carried["command"], carried["arguments"])
    return lsp.ExecuteCommandParams(action.command.command, action.command.arguments)


async def actions(editor: Editor, line: int) -> dict[str, lsp.CodeAction | lsp.Command]:
    params = lsp.CodeActionParams(
        lsp.TextDocumentIdentifier(editor.uri),
        lsp.Range(lsp.Position(line, 0), lsp.Position(line, 0)),
        lsp.CodeActionContext(diagnostics=[]),
    )
    offered = await within(editor.client.text_document_code_action_async(params))
    return {action.title: action for action in offered}


async def test_a_code_action_is_resolved_to_an_edit(start, environment, claude):
    environment["TANDEM_MODE"] = "claude-only"
    editor = await start()
    action = (await actions(editor, line=3))["Document with Tandem"]
    assert action.edit is None, "nothing is asked of a model before an action is chosen"
    resolved = await within(editor.client.code_action_resolve_async(action))
    assert "stand-in for Claude" in edited_text(resolved.edit)
    assert await end(editor) == 0


async def test_a_code_action_applies_its_edit_for_clients_that_cannot_resolve(
    start, environment, claude
):
    environment["TANDEM_MODE"] = "claude-only"
    editor = await start(resolve=False)
    params = command_of((await actions(editor, line=3))["Document with Tandem"])
    await within(editor.client.workspace_execute_command_async(params))
    assert len(editor.edits) == 1
    assert "stand-in for Claude" in edited_text(editor.edits[0])
    assert await end(editor) == 0


async def test_an_explanation_is_shown_as_a_document(start, environment, claude):
    environment["TANDEM_MODE"] = "claude-only"
    editor = await start()
    params = command_of((await actions(editor, line=3))["Explain with Tandem"])
    await within(editor.client.workspace_execute_command_async(params))
    shown = [document.uri for document in editor.client.shown_documents]
    assert len(shown) == 1
    text = pathlib.Path(url2pathname(urlsplit(shown[0]).path)).read_text()
    assert "stand-in for Claude" in text
    assert await end(editor) == 0


async def test_exit_without_shutdown_is_a_failure(start):
    editor = await start()
    editor.client.exit(None)
    assert await within(editor.client._server.wait()) == 1
