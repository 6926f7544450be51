-- The beginning of scripts that write: recognizes a repeated run.
--
-- A table is six keys that exist together. While it exists, five of them have the member or field '\255', which is no
-- key, and `about` has the field `exists`: if only some have it, the server has evicted a key.
--
-- A client gives each of its writes under way a session. A session is a field of `about` with the number of its last
-- write in this table (8 bytes), the version of that write (8), the version of the topic's write before it (8), and the
-- topic if the client did not name one. So a repeated write is recognized, however many were made in between, and a
-- late one is refused. If a repeated write did nothing, its session has only its number and the table's version, so
-- that its first try, if it arrives only now, does nothing either.
-- `about` also has the `version` of the last write, which is the `tip`: its session and number.
-- A repeated write has `within`: its first try was within so many milliseconds.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local session, number, within = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local call, sub, pack, unpack_bytes = redis.call, string.sub, struct.pack, struct.unpack

local last, kept, tip = unpack(call('HMGET', about, 'version', session, 'tip'))
if kept then
    local made = unpack_bytes('>I8', kept)
    if made == number and #kept > 16 then
        return {4, sub(kept, 9, 24), sub(kept, 25)}
    elseif made > number or (made == number and not within) then
        return {6}
    end
elseif within then
    local forgot = call('HGET', about, 'forgot')
    if forgot and (call('TIME')[1] - forgot) * 1000 <= within then
        return {6}
    end
elseif call('HLEN', about) > SESSIONS then
    -- In seconds, rounded up; nothing is done if that is refused.
    local now = call('TIME')[1] + 1
    -- The half of the sessions that was used last stays, and the other half goes.
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
    -- A full server accepts it now.
    call('HSET', about, 'forgot', now)
end
if within then
    -- Replaced if it does something.
    redis.pcall('HSET', about, session, pack('>I8I8', number, last or 0))
end
