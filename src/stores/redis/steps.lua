-- The number of these keys that exist. Each takes its own command: while a slot is being moved, a cluster refuses a
-- command with several keys if one of them is missing.
local function count_of(...)
    local count = 0
    for _, key in ipairs({...}) do
        count = count + call('EXISTS', key)
    end
    return count
end

-- Steps that are taken all or not at all. `undo` has the commands that reverse them.
local undo, refusal = {}, nil

local function step(back, ...)
    if refusal then
        return
    end
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then
        refusal = reply
    else
        undo[#undo + 1] = back
    end
end

-- Returns the reply, or the refusal, or {6} if steps before the refusal could not be undone.
local function outcome(reply)
    if refusal then
        reply = refusal
        for i = #undo, 1, -1 do
            local back = redis.pcall(unpack(undo[i]))
            if type(back) == 'table' and back.err then
                reply = {6}
            end
        end
    end
    return reply
end

-- Gives the table and the session their new values.
local function note(version, made)
    local is_raised = tonumber(version) > tonumber(last or 0)
    local back = {'HSET', about, 'version', last or 0, session, kept or string.rep('\0', 24), 'tip', tip or ''}
    step(back, 'HSET', about, 'version', version, session, made, 'tip', is_raised and session .. number or tip or '')
    if is_raised and tonumber(last or 0) == 0 then
        step({'HDEL', about, 'incarnation'}, 'HSET', about, 'incarnation', session .. number)
    end
end

-- As `note`, then `first`. If the server is out of memory, `first`, which needs none, goes first: afterwards the server
-- accepts the rest.
local function note_in_any_case(version, made, first)
    note(version, made)
    if refusal and string.find(refusal.err, 'OOM', 1, true) then
        refusal = nil
        first()
        note(version, made)
    else
        first()
    end
end

local function begin()
    step({'UNLINK', rows}, 'HSET', rows, '\255', '')
    step({'UNLINK', deletes}, 'HSET', deletes, '\255', '')
    step({'UNLINK', keys}, 'ZADD', keys, 0, '\255')
    step({'UNLINK', topics}, 'ZADD', topics, 0, '\255')
    step({'UNLINK', order}, 'ZADD', order, 'inf', '\255')
    step({'HDEL', about, 'exists'}, 'HSET', about, 'exists', '')
end
