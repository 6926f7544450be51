-- Makes one write, and publishes it. A row is its version (8 bytes), the length of its topic (4), the topic, the value;
-- of a deleted one the version of the delete is remembered for a while.
-- A set needs only the first two keys. With a `head` the write is published, on the row's topic, as head, version, tail.
local what, key, value, topic, wanted, flags, head, tail = unpack(ARGV, 4)
local unless_equal, returning = flags == 'e' or flags == 'er', flags == 'r' or flags == 'er'

local packed = call('HGET', rows, key)
local exists = packed and last or call('HEXISTS', about, 'exists') == 1
local is_there = packed or call('HEXISTS', rows, '\255') == 1
local version, deleted, of_topic, value_at
if not exists ~= not is_there or (what == 'create' and not exists and count_of(deletes, keys, topics, order) > 0) then
    return {within and 6 or 7}
elseif packed then
    local length
    version, length = unpack_bytes('>I8I4', packed)
    value_at = 13 + length
    of_topic = sub(packed, 13, value_at - 1)
elseif what == 'create' then
    deleted = call('HGET', deletes, key)
    version = deleted and unpack_bytes('>I8', deleted)
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

local next_version = (last or 0) + 1
local version_bytes, topic_bytes = pack('>I8', next_version), pack('>I4', #of_topic) .. of_topic
local row = version_bytes .. topic_bytes .. value
-- Without a named topic the session has to know it.
local made = pack('>I8', number) .. version_bytes .. (topic == '' and of_topic or '')
local message
if head ~= '' then
    -- A map of MessagePack begins above ASCII.
    message = head .. (string.byte(head) < 128 and string.format('%d', next_version) or '\207' .. version_bytes) .. tail
end
local reply = topic ~= '' and not before and next_version or {0, next_version, of_topic, before}

-- The same as below, without what it costs to be prepared for any number of steps.
if what == 'set' then
    local pcall = redis.pcall
    call('HSET', about, 'version', next_version, session, made)
    local done = pcall('HSET', rows, key, row)
    if message and type(done) == 'number' then
        done = pcall('PUBLISH', of_topic, message)
    end
    if type(done) == 'number' then
        return reply
    end
    local back = pcall('HSET', rows, key, packed)
    local back_too = pcall('HSET', about, 'version', last, session, kept or NEVER)
    return type(back) == 'number' and type(back_too) == 'number' and done or {6}
end
