-- Makes one write, and publishes it. A row, or what is remembered of a deleted one, is
--   its version (8 bytes), the length of its topic (4), the number of bytes of its history (1),
--   the history: its last writes, the newest first, each with its token (12) and its version (8), the topic, the value.
local rows, keys, topics, deletes, order, about = unpack(KEYS)
local what, key, value, topic, wanted, unless_equal, returning, token = unpack(ARGV)

local function read(packed)
    if not packed then
        return nil
    end
    local version, topic_length, history_length = struct.unpack('>I8I4B', packed)
    local topic_at = 14 + history_length
    local value_at = topic_at + topic_length
    local history = string.sub(packed, 14, topic_at - 1)
    return version, string.sub(packed, topic_at, value_at - 1), history, value_at
end

local packed = redis.call('HGET', rows, key)
local deleted = not packed and redis.call('HGET', deletes, key)
local version, of_topic, history, value_at = read(packed or deleted)

-- Somebody who got no answer asks again.
if history then
    local at = string.find(history, token, 1, true)
    if at and at % 20 == 1 then
        return {4, (struct.unpack('>I8', history, at + 12)), of_topic}
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
elseif unless_equal == '1' or returning == '1' then
    before = string.sub(packed, value_at)
    if unless_equal == '1' and what == 'set' and before == value then
        return {5, version, of_topic, returning == '1' and before}
    end
    before = returning == '1' and before
end

version = redis.call('HINCRBY', about, 'version', 1)
history = token .. struct.pack('>I8', version) .. string.sub(history or '', 1, 60)
local head = struct.pack('>I8I4B', version, #of_topic, #history) .. history .. of_topic
local in_topic = struct.pack('>I4', #of_topic) .. of_topic .. key
if what == 'delete' then
    redis.call('HDEL', rows, key)
    redis.call('ZREM', keys, key)
    redis.call('ZREM', topics, in_topic)
    redis.call('HSET', deletes, key, head)
    redis.call('ZADD', order, version, key)
    local oldest = version - tonumber(ARGV[9]) - 1
    for _, forgotten in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', oldest, 'LIMIT', 0, 10)) do
        redis.call('ZREM', order, forgotten)
        redis.call('HDEL', deletes, forgotten)
    end
else
    redis.call('HSET', rows, key, head .. value)
    if what == 'create' then
        redis.call('ZADD', keys, 0, key)
        redis.call('ZADD', topics, 0, in_topic)
        redis.call('HSETNX', about, 'exists', token)
        if deleted then
            redis.call('HDEL', deletes, key)
            redis.call('ZREM', order, key)
        end
    end
end

local channel, before_version, after_version, is_text = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
if channel then
    local number = is_text == '1' and string.format('%.0f', version) or '\207' .. struct.pack('>I8', version)
    redis.call('PUBLISH', channel, before_version .. number .. after_version)
end
return {0, version, of_topic, before}
