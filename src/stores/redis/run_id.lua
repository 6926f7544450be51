-- A number of the server's run, in digits; '' if the user may not know it. A server that takes over has another one.
local function run_id()
    local about = redis.pcall('INFO', 'server')
    return type(about) == 'string' and string.match(about, 'run_id:(%x+)') or ''
end
