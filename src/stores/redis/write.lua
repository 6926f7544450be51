-- Makes one write, and publishes it. A row, or what is remembered of a deleted one, is
--   its version (8 bytes), the length of its topic (4), the number of bytes of its history (1),
--   the history: its last writes, the newest first, each with its token (12) and its version (8), the topic, the value.
-- A set needs only the first three keys. With `head` the write is published, on the row's topic, as head, version, tail.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local what, key, value, topic, wanted, flags, token, head, tail = unpack(ARGV)
local unless_equal, returning = flags == 'e' or flags == 'er', flags == 'r' or flags == 'er'
local call, sub, pack, unpack_bytes = redis.call, string.sub, struct.pack, struct.unpack

local packed = call('HGET', rows, key)
local deleted = not packed and call('HGET', deletes, key)
local version, of_topic, value_at
local history = ''
if packed or deleted then
    local topic_length, history_length
    version, topic_length, history_length = unpack_bytes('>I8I4B', packed or deleted)
    value_at = 14 + history_length + topic_length
    history = sub(packed or deleted, 14, 13 + history_length)
    of_topic = sub(packed or deleted, 14 + history_length, value_at - 1)
    -- Somebody who got no answer asks again.
    local at = string.find(history, token, 1, true)
    if at and at % 20 == 1 then
        return {4, (unpack_bytes('>I8', history, at + 12)), of_topic}
    end
end

if what == 'create' then
    if packed then
        return {1}
    end
elseif not packed or (topic ~= '' and topic ~= of_topic) then
    return {2}
end
if wanted ~= '' and tonumber(wanted) ~= version then
    return {3}
end

local before = false
if what == 'create' then
    of_topic = topic
elseif unless_equal or returning then
    before = sub(packed, value_at)
    if unless_equal and what == 'set' and before == value then
        return {5, version, of_topic, returning and before}
    end
    before = returning and before
end

version = call('HINCRBY', about, 'version', 1)
if version == 1 then
    call('HSET', about, 'incarnation', token)
end
local version_bytes = pack('>I8', version)
history = sub(history, 1, 60)
local row = version_bytes .. pack('>I4B', #of_topic, #history + 20) .. token .. version_bytes .. history .. of_topic
if what == 'set' then
    call('HSET', rows, key, row .. value)
else
    local in_topic = pack('>I4', #of_topic) .. of_topic .. key
    if what == 'create' then
        call('HSET', rows, key, row .. value)
        call('ZADD', keys, 0, key)
        call('ZADD', topics, 0, in_topic)
        if call('HSETNX', about, 'exists', token) == 1 then
            keep(rows, deletes, keys, topics, order)
        end
        if deleted then
            call('HDEL', deletes, key)
            call('ZREM', order, key)
        end
    else
        call('HDEL', rows, key)
        call('ZREM', keys, key)
        call('ZREM', topics, in_topic)
        call('HSET', deletes, key, row)
        call('ZADD', order, version, key)
        local oldest = version - REMEMBERED - 1
        for _, forgotten in ipairs(call('ZRANGEBYSCORE', order, '-inf', oldest, 'LIMIT', 0, 10)) do
            call('ZREM', order, forgotten)
            call('HDEL', deletes, forgotten)
        end
    end
end

if head then
    -- A map of MessagePack begins above ASCII.
    local number = string.byte(head) < 128 and string.format('%d', version) or '\207' .. version_bytes
    call('PUBLISH', of_topic, head .. number .. tail)
end
if topic ~= '' and not before then
    return version
end
return {0, version, of_topic, before}
