-- For `luacheck lua examples`, which `make check` runs.
std = "luajit"
max_line_length = 120
files["examples/nginx"] = { std = "ngx_lua" }
