-- Several steps, of which all are taken or none. `undo` has the commands that take them back.
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

-- The reply, which is {6} if something was refused and not all could be taken back.
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
    local back = {'HSET', about, 'version', last or 0, session, kept or NEVER}
    step(back, 'HSET', about, 'version', version, session, made)
    if tonumber(version) > 0 and tonumber(last or 0) == 0 then
        step({'HDEL', about, 'incarnation'}, 'HSET', about, 'incarnation', session .. number)
    end
end

-- As `note`, after `first`, which needs no memory, if the server is full: it does not refuse what follows that.
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
