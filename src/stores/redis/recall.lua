-- How scripts that write begin: they look whether they have run already.
--
-- A table is six keys that come and go together. While it exists, five of them have the member or field '\255', which is
-- no key, and `about` has the field `exists`: where only some have it, the server has evicted a key.
--
-- Of its writes that are under way a client gives each a session: a field of `about` with the number of the write that
-- the session has made last in this table (8 bytes), its version (8), that of the topic's write before it (8), and the topic if
-- the client did not name one. So a write that is asked for again is recognized, however many were made in between, and one
-- that comes late is refused.
-- `within` is there if it is asked for again: it was first asked for within so many milliseconds.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local session, number, within = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local call, sub, pack, unpack_bytes = redis.call, string.sub, struct.pack, struct.unpack
-- What a session has that has made no write.
local NEVER = string.rep('\0', 24)

-- How many of these keys exist. One is asked for at a time: while a slot is being moved, a cluster refuses commands that name
-- several of which one is not there.
local function count_of(...)
    local count = 0
    for _, key in ipairs({...}) do
        count = count + call('EXISTS', key)
    end
    return count
end

local last, kept = unpack(call('HMGET', about, 'version', session))
if kept then
    local made = unpack_bytes('>I8', kept)
    if made == number then
        return {4, sub(kept, 9, 24), sub(kept, 25)}
    elseif made > number then
        return {6}
    end
elseif within then
    local forgot = call('HGET', about, 'forgot')
    if forgot and (call('TIME')[1] - forgot) * 1000 <= within then
        return {6}
    end
elseif call('HLEN', about) > SESSIONS then
    -- The half of the sessions that was used last stays.
    local sessions, fields = {}, call('HGETALL', about)
    for i = 1, #fields, 2 do
        if sub(fields[i], 1, 1) == '@' then
            sessions[#sessions + 1] = {fields[i], (unpack_bytes('>I8', fields[i + 1], 9))}
        end
    end
    table.sort(sessions, function(one, other) return one[2] > other[2] end)
    for i = SESSIONS / 2 + 1, #sessions do
        call('HDEL', about, sessions[i][1])
    end
    -- In seconds; the one that has begun is not over.
    call('HSET', about, 'forgot', call('TIME')[1] + 1)
end
