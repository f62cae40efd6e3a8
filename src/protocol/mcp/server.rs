//! The server's side of an MCP session: which request leads where.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CustomRequest, CustomResult,
    ErrorCode, ErrorData, GetPromptRequestParams, GetPromptResponse, Implementation,
    ListPromptsResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Call};
use super::catalogue::{self, ToolName};
use super::progress::Progress;
use super::task::{self, BadArgument, Surroundings};
use super::{Session, prompts, resources, types};
use crate::inference::Task;
use crate::router::RouteRequest;

/// What a host may show its model about the server as a whole.
const INSTRUCTIONS: &str = "Tandem completes, edits and explains code, and answers questions, with \
a language model on this machine where it can and with Claude where the user allows it. Every \
result names the backend and the model that answered, and why they were asked. The tools return \
text and change nothing. Call `status` when an answer is missing or slow.";

/// One session.
pub(super) struct Server {
    session: Session,
    hung_up: CancellationToken,
}

impl Server {
    /// `hung_up` is cancelled when the client will send nothing more.
    pub(super) fn new(session: Session, hung_up: CancellationToken) -> Self {
        Self { session, hung_up }
    }

    async fn call(
        &self,
        tool: ToolName,
        arguments: Value,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        let request = match self.request(tool, arguments) {
            Ok(Some(request)) => request,
            Ok(None) => {
                let status = resources::status(&self.session.router);
                return answer::structured(resources::in_words(&status), &status);
            }
            Err(BadArgument(complaint)) => return answer::complain(complaint),
        };
        let by_schema = matches!(&request.generate.task, Task::Chat(task) if task.schema.is_some());
        let answered = answer::follow(Call {
            router: self.session.router.clone(),
            request,
            limit: self.session.call_limit,
            cancel: context.ct,
            hung_up: self.hung_up.clone(),
            progress: Progress::new(context.peer, context.meta.get_progress_token()),
        })
        .await;
        match answered {
            Ok(text) => match tool {
                ToolName::CompleteCode => answer::completion(text),
                ToolName::CommitMessage => answer::commit_message(text),
                ToolName::Ask => answer::ask(text, by_schema),
                ToolName::EditCode
                | ToolName::ExplainCode
                | ToolName::Summarize
                | ToolName::Status => answer::success(&text),
            },
            Err(failure) => answer::failure(failure),
        }
    }

    /// What to route for a call; `None` for the tool that asks no model.
    fn request(&self, tool: ToolName, given: Value) -> Result<Option<RouteRequest>, BadArgument> {
        let settings = self.session.router.settings();
        let around = Surroundings {
            settings: &settings,
            workspace: self.session.workspace.as_deref(),
        };
        match tool {
            ToolName::CompleteCode => task::complete_code(task::arguments(given)?, &around),
            ToolName::EditCode => task::edit_code(task::arguments(given)?, &around),
            ToolName::ExplainCode => task::explain_code(task::arguments(given)?, &around),
            ToolName::Summarize => task::summarize(task::arguments(given)?, &around),
            ToolName::CommitMessage => task::commit_message(&task::arguments(given)?, &around),
            ToolName::Ask => task::ask(task::arguments(given)?, &around),
            ToolName::Status => {
                task::arguments::<types::Nothing>(given)?;
                return Ok(None);
            }
        }
        .map(Some)
    }
}

/// Every list fits one page, so no cursor was ever given out.
fn only_page(page: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match page.and_then(|page| page.cursor) {
        None => Ok(()),
        Some(_) => Err(ErrorData::invalid_params(
            "The cursor is unknown. Leave it out: the list has one page.",
            None,
        )),
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("tandem", env!("CARGO_PKG_VERSION")).with_title("Tandem"),
            )
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        only_page(page)?;
        let may_leave_machine = resources::may_leave_machine(&self.session.router);
        Ok(ListToolsResult::with_all_items(catalogue::tools(
            may_leave_machine,
        )))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = ToolName::parse(&request.name) else {
            let known = ToolName::ALL.map(ToolName::as_str).join(", ");
            let message = format!("There is no tool {:?}. Call one of: {known}.", request.name);
            return Err(ErrorData::invalid_params(message, None));
        };
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        // rmcp sends no reply for a handler that panics, and the client would wait for ever.
        let result = AssertUnwindSafe(self.call(tool, arguments, context))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                answer::complain(
                    "Tandem failed inside this tool. This is a defect: please report it with the \
                     log, and try again."
                        .to_owned(),
                )
            });
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        only_page(page)?;
        Ok(ListResourcesResult::with_all_items(resources::list()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(&request.uri, &self.session.router).map(ReadResourceResponse::from)
    }

    async fn list_prompts(
        &self,
        page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        only_page(page)?;
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request).map(GetPromptResponse::from)
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let message = format!(
            "There is no method {:?}. Use the methods of the capabilities that the handshake gave.",
            request.method
        );
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }
}
