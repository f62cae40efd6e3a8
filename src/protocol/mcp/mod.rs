//! MCP, on rmcp.
