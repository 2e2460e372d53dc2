//! Tests of the Lua binding `resty.bliss` (in `lib/resty`) under a vendored LuaJIT and under nginx.
